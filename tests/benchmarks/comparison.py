"""Attention beside RLlib's own models on the sequence path: PPO. See `replay.py` for the other.

Every model plays the same environment with the same number of sub-environments, batch, minibatch,
epochs, width, layers and window. A rollout is `sample()`, after a weight sync as in training. A
learner update is everything between episodes and new weights: connectors, epochs, minibatches.
"""

from collections.abc import Callable
from functools import partial

from ray.rllib.algorithms.algorithm import Algorithm

from tests.benchmarks import phases
from tests.benchmarks.models import ppo_config
from tests.benchmarks.options import Options, Size
from tests.benchmarks.timing import interleave, seconds

Times = dict[str, dict[str, list[float]]]


def compare_ppo(size: Size, options: Options) -> Times:
    """Measures whole PPO iterations of every model.

    Args:
        size: Width and window.
        options: The command line.

    Returns:
        Seconds per env step, one a round, by model and phase.
    """
    algos = {model: ppo_config(model, size, options).build_algo() for model in options.models}
    return _compare(algos, lambda algo: _ppo_iteration(algo, options.batch), options)


def _compare(
    algos: dict[str, Algorithm], turn: Callable[[Algorithm], dict[str, float]], options: Options
) -> Times:
    times = interleave(
        {model: partial(turn, algo) for model, algo in algos.items()}, options.rounds
    )
    for algo in algos.values():
        algo.stop()
    return times


def _ppo_iteration(algo: Algorithm, steps: int) -> dict[str, float]:
    data: list = []
    rollout = seconds(lambda: data.append(phases.rollout(algo, steps)))
    steps = phases.count_steps(data[0])
    learner = seconds(lambda: phases.update(algo, data[0]))
    sync = seconds(lambda: phases.sync(algo))
    return {
        "rollout": rollout / steps,
        "learner": learner / steps,
        "iteration": (rollout + learner + sync) / steps,
    }
