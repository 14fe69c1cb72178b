"""Trains for long, and says whether memory or speed drift.

How to run this script
----------------------
`python -m tests.benchmarks.soak --algorithm ppo --minutes 60 --out results/soak`

Results to expect
-----------------
`ALGORITHM.json`: a row each minute, with the resident memory of driver, runner and learner in MB
(from Linux's `/proc`) and env steps per second since the row before. The closing line compares the
last quarter of the run with the second one (the first is warm-up): all near 1.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

from rllib_attention import use_attention

STEPS = "num_env_steps_sampled_lifetime"
Row = dict[str, float]


def make_config(name: str) -> AlgorithmConfig:
    """Returns a config with one remote runner and one remote learner.

    Args:
        name: "ppo" or "sac".
    """
    config = PPOConfig() if name == "ppo" else SACConfig()
    config.environment("CartPole-v1" if name == "ppo" else "Pendulum-v1")
    config.env_runners(num_env_runners=1, num_envs_per_env_runner=8).learners(num_learners=1)
    config.rl_module(model_config={"fcnet_hiddens": [64], "vf_share_layers": True})
    if name == "ppo":
        config.training(train_batch_size_per_learner=2048, minibatch_size=512, num_epochs=4)
    else:
        # Full after a few minutes: from then on memory must be flat.
        buffer = {"type": "EpisodeReplayBuffer", "capacity": 20_000}
        config.training(replay_buffer_config=buffer, train_batch_size_per_learner=128)
        config.training(training_intensity=32).reporting(min_sample_timesteps_per_iteration=1_000)
    return use_attention(config, window=16)


def memory_of(algo: Algorithm) -> Callable[[], Row]:
    """Returns a function that reads the resident memory of an algorithm's processes, in MB.

    Args:
        algo: A built algorithm with remote runners and learners.
    """
    [runner] = algo.env_runner_group.foreach_env_runner(
        lambda _: os.getpid(), local_env_runner=False
    )
    [learner] = [found.get() for found in algo.learner_group.foreach_learner(lambda _: os.getpid())]
    pids = {"driver": os.getpid(), "runner": runner, "learner": learner}
    return lambda: {name: _resident(pid) for name, pid in pids.items()}


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def soak(algo: Algorithm, minutes: float, interval: float = 60.0) -> list[Row]:
    """Trains, and looks at memory and speed from time to time.

    Args:
        algo: A built algorithm.
        minutes: How long.
        interval: Seconds between two rows.
    """
    rows: list[Row] = []
    memory, start, steps = memory_of(algo), time.monotonic(), 0
    last = start
    while last - start < 60 * minutes:
        result = algo.train()
        now = time.monotonic()
        if now - last >= interval:
            rate = (result[STEPS] - steps) / (now - last)
            rows.append({"minutes": (now - start) / 60, "rate": rate} | memory())
            steps, last = result[STEPS], now
    return rows


def drift(rows: Sequence[Row]) -> Row:
    """Returns the median of the last quarter over that of the second one, by column.

    Args:
        rows: From `soak`, four or more.
    """
    quarter = len(rows) // 4
    early, late = rows[quarter : 2 * quarter], rows[-quarter:]
    names = [name for name in rows[0] if name != "minutes"]
    return {
        name: statistics.median(row[name] for row in late)
        / statistics.median(row[name] for row in early)
        for name in names
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--algorithm", choices=("ppo", "sac"), default="ppo")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("results/soak"))
    args = parser.parse_args()
    algo = make_config(args.algorithm).build_algo()
    rows = soak(algo, args.minutes)
    algo.stop()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.algorithm}.json").write_text(json.dumps(rows, indent=1) + "\n")
    ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in drift(rows).items())
    print(f"{args.algorithm}, {args.minutes:g} minutes, late against early: {ratios}")


if __name__ == "__main__":
    main()
