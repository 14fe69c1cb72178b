"""What `AttentionMapCallback` costs: CPU seconds of evaluations with and without it."""

import time
from collections.abc import Callable
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionConfig, AttentionMapCallback
from tests.benchmarks.labels import CALLBACK, WITHOUT
from tests.benchmarks.options import Options
from tests.benchmarks.timing import interleave
from tests.harness import RandomEnv, build, prepare

MODELS = {
    "window 32, 2 layers": AttentionConfig(),
    "window 22, 3 layers, dilation 22": AttentionConfig(num_layers=3, window=22, dilation=22),
}
_EPISODES = 2  # in an evaluation


def evaluation_seconds(options: Options) -> dict[str, dict[str, list[float]]]:
    """Measures evaluations of PPO over two episodes.

    Args:
        options: The command line; episodes have `callback_steps`.

    Returns:
        CPU seconds of an evaluation in each round, by model, with and without the callback.
    """
    results = {}
    for name, attention in MODELS.items():
        algos = {
            WITHOUT: _make(attention, options),
            CALLBACK: _make(attention, options, callbacks_class=AttentionMapCallback),
        }
        turns = {kind: _turn(algo) for kind, algo in algos.items()}
        figures = interleave(turns, options.rounds)
        results[name] = {kind: found["evaluation"] for kind, found in figures.items()}
        for algo in algos.values():
            algo.stop()
    return results


def _make(attention: AttentionConfig, options: Options, **callbacks: Any) -> Algorithm:
    """Builds an algorithm that can evaluate."""
    steps = options.callback_steps
    config = prepare(PPOConfig(), RandomEnv, lengths=(steps, steps + 1)).callbacks(**callbacks)
    config.env_runners(num_envs_per_env_runner=1)
    config.evaluation(evaluation_interval=1, evaluation_duration=_EPISODES)
    return build(config, attention)


def _turn(algo: Algorithm) -> Callable[[], dict[str, float]]:
    def turn() -> dict[str, float]:
        start = time.process_time()
        algo.evaluate()
        return {"evaluation": time.process_time() - start}

    return turn
