"""Speed of PPO with attention against RLlib's own models, in one run, interleaved, as ratios.

How to run this script
----------------------
`python tests/benchmarks/ppo.py --out benchmark.json`

Every model plays the same environment with the same number of sub-environments, batch, minibatch,
epochs, width, layers and window, one round after another; the table shows medians over rounds and
their spread. Rollout is `sample()`, learner is the whole update (connectors, epochs, minibatches).
Nothing else should run on the machine.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.execution.train_ops import train_one_step

from rllib_attention import use_attention

MODELS = ("attention", "lstm", "gtrxl", "mlp")


class IdleEnv(gym.Env):
    """Costs nothing: fixed observations, episodes of `length` steps."""

    def __init__(self, config: dict[str, Any]):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self._obs = np.full(4, 0.5, np.float32)
        self._length = config.get("length", 200)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        """Starts an episode."""
        self._time = 0
        return self._obs, {}

    def step(self, action: int) -> tuple:
        """Counts."""
        self._time += 1
        return self._obs, 1.0, False, self._time >= self._length, {}


def make_config(model: str, args: argparse.Namespace) -> AlgorithmConfig:
    """Returns the PPO config of one model."""
    config = PPOConfig().environment(IdleEnv, env_config={"length": args.episode_length})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=args.num_envs)
    config.debugging(log_level="ERROR")
    training: dict[str, Any] = {"num_epochs": args.num_epochs, "minibatch_size": args.minibatch}
    hiddens = {"fcnet_hiddens": [args.dim, args.dim], "vf_share_layers": True}
    if model == "gtrxl":
        config.api_stack(
            enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
        )
        return config.training(
            train_batch_size=args.batch,
            model={**hiddens, "max_seq_len": args.seq_len, **_gtrxl(args)},
            **training,
        )
    config.training(train_batch_size_per_learner=args.batch, **training)
    if model == "lstm":
        hiddens |= {"use_lstm": True, "lstm_cell_size": args.dim, "max_seq_len": args.seq_len}
    config.rl_module(model_config=hiddens)
    if model == "attention":
        use_attention(
            config,
            dim=args.dim,
            num_heads=4,
            num_layers=args.num_layers,
            window=args.window,
            ffn_dim=2 * args.dim,
            max_seq_len=args.chunk,
        )
    return config


def _gtrxl(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "use_attention": True,
        "attention_num_transformer_units": args.num_layers,
        "attention_dim": args.dim,
        "attention_num_heads": 4,
        "attention_head_dim": args.dim // 4,
        "attention_memory_inference": args.window - 1,
        "attention_memory_training": args.window - 1,
        "attention_position_wise_mlp_dim": 2 * args.dim,
    }


def one_round(algo: Algorithm, model: str, steps: int) -> tuple[float, float]:
    """Returns the seconds of one rollout and of one update."""
    start = time.perf_counter()
    if model == "gtrxl":
        batch = synchronous_parallel_sample(
            worker_set=algo.env_runner_group, max_env_steps=steps, concat=True
        ).as_multi_agent()
        sampled = time.perf_counter()
        train_one_step(algo, batch)
        return sampled - start, time.perf_counter() - sampled
    episodes = algo.env_runner.sample(num_timesteps=steps)
    sampled = time.perf_counter()
    config = algo.config
    algo.learner_group.update(
        episodes=episodes,
        timesteps={"num_env_steps_sampled_lifetime": steps},
        num_epochs=config.num_epochs,
        minibatch_size=config.minibatch_size,
        shuffle_batch_per_epoch=True,
    )
    updated = time.perf_counter()
    algo.env_runner_group.sync_weights(from_worker_or_learner_group=algo.learner_group)
    return sampled - start, updated - sampled


def measure(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Runs all models in turns; returns seconds by model and phase."""
    algos = {model: make_config(model, args).build_algo() for model in args.models}
    times: dict[str, dict[str, list[float]]] = {
        model: {"rollout": [], "learner": [], "iteration": []} for model in algos
    }
    for index in range(args.rounds + 1):
        for model, algo in algos.items():
            rollout, learner = one_round(algo, model, args.batch)
            if index:  # the first round warms up
                times[model]["rollout"].append(rollout)
                times[model]["learner"].append(learner)
                times[model]["iteration"].append(rollout + learner)
    for algo in algos.values():
        algo.stop()
    return times


def table(times: dict[str, dict[str, list[float]]], batch: int) -> str:
    """Returns medians and attention's ratios to the others as Markdown."""
    lines = [
        "| model | rollout, ms per 1,000 env steps | learner | iteration | attention is |",
        "|---|---|---|---|---|",
    ]
    per_thousand: Callable[[list[float]], str] = lambda seconds: (  # noqa: E731
        f"{statistics.median(seconds) * 1e6 / batch:.0f} "
        f"({min(seconds) * 1e6 / batch:.0f}–{max(seconds) * 1e6 / batch:.0f})"
    )
    for model, phases in times.items():
        cells = [per_thousand(seconds) for seconds in phases.values()]
        ratios = " / ".join(
            f"{statistics.median(times['attention'][p]) / statistics.median(s):.2f}"
            for p, s in phases.items()
        )
        lines.append(f"| {model} | {' | '.join(cells)} | {ratios} × |")
    return "\n".join(lines)


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    for name, value in {
        "rounds": 5,
        "batch": 2000,
        "minibatch": 256,
        "num-epochs": 6,
        "num-envs": 8,
        "dim": 64,
        "num-layers": 2,
        "window": 32,
        "seq-len": 32,
        "chunk": 64,
        "episode-length": 200,
        "threads": torch.get_num_threads(),
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    return parser.parse_args()


def main() -> None:
    """Measures, prints the table, and writes the results."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    times = measure(args)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads")
    print(table(times, args.batch))
    if args.out:
        args.out.write_text(
            json.dumps({"args": vars(args), "seconds": times}, default=str, indent=1)
        )


if __name__ == "__main__":
    main()
