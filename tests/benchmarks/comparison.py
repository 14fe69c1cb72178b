"""Attention beside RLlib's own models: PPO for the sequence path, SAC for the window path.

Every model plays the same environment with the same number of sub-environments, batch, minibatch,
epochs, width, layers and window. A rollout is `sample()`, after a weight sync as in training. A
learner update is everything between episodes and new weights: connectors, epochs, minibatches.
"""

from collections.abc import Callable
from functools import partial

from ray.rllib.algorithms.algorithm import Algorithm

from tests.benchmarks import phases
from tests.benchmarks.labels import SAC_MODELS
from tests.benchmarks.models import ppo_config, sac_config
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


def compare_sac(size: Size, options: Options) -> Times:
    """Measures SAC's rollout of one step per sub-environment, and its update.

    Args:
        size: Width and window.
        options: The command line.

    Returns:
        Seconds per env step (rollout) and per update (learner), one a round, by model and phase.
    """
    algos = {model: sac_config(model, size, options).build_algo() for model in SAC_MODELS}
    for algo in algos.values():
        # Enough for the first updates, and episodes long enough to fill most windows.
        for _ in range(options.episode_length):
            algo.local_replay_buffer.add(phases.rollout(algo, options.num_envs))
    return _compare(algos, lambda algo: _sac_iterations(algo, options), options)


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


def _sac_iterations(algo: Algorithm, options: Options) -> dict[str, float]:
    """RLlib's `training_step`: a step of each sub-environment, an update, a weight sync."""
    buffer, steps, rollout, learner = algo.local_replay_buffer, options.num_envs, 0.0, 0.0
    for _ in range(options.sac_updates):
        rollout += seconds(lambda: buffer.add(phases.rollout(algo, steps)))
        learner += seconds(lambda: _sac_update(algo, options.sac_batch))
        phases.sync(algo)
    return {
        "rollout": rollout / (options.sac_updates * steps),
        "learner": learner / options.sac_updates,
    }


def _sac_update(algo: Algorithm, batch: int) -> None:
    episodes = algo.local_replay_buffer.sample(
        num_items=batch, n_step=1, gamma=algo.config.gamma, sample_episodes=True
    )
    algo.learner_group.update(
        episodes=episodes, timesteps={phases.NUM_ENV_STEPS_SAMPLED_LIFETIME: batch}
    )
