"""Attention on replayed runs beside RLlib's MLP: SAC and DQN, iteration by iteration.

An iteration is RLlib's `training_step`: a step of each sub-environment into the replay buffer, a
batch out of it, an update, new priorities, a weight sync. Attention takes its turn with runs of
several lengths T; the batch is the same, so that long runs are few.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import TD_ERROR_KEY
from ray.rllib.utils.replay_buffers.utils import update_priorities_in_episode_replay_buffer

from tests.benchmarks import phases
from tests.benchmarks.labels import MLP, REPLAYING
from tests.benchmarks.models import replay_config
from tests.benchmarks.options import Options, Size
from tests.benchmarks.timing import interleave, seconds

Times = dict[str, dict[str, list[float]]]


def compare_replay(size: Size, options: Options) -> dict[str, Times]:
    """Measures iterations of SAC (uniform replay) and DQN (prioritised replay).

    Args:
        size: Width and window.
        options: The command line.

    Returns:
        Seconds of an iteration and its phases and the bytes of a batch's observations, one a round,
        by algorithm, model (the MLP, or the length T of attention's runs) and figure.
    """
    return {algorithm: _compare(algorithm, size, options) for algorithm in REPLAYING}


def _compare(algorithm: str, size: Size, options: Options) -> Times:
    configs = {MLP: replay_config(algorithm, size, options)}
    for run_len in options.run_lens:
        configs[str(run_len)] = replay_config(algorithm, size, options, run_len=run_len)
    algos = {name: config.build_algo() for name, config in configs.items()}
    for algo in algos.values():
        # Enough for the first updates, and episodes long enough to fill most windows.
        for _ in range(options.episode_length):
            algo.local_replay_buffer.add(phases.rollout(algo, options.num_envs))
    turns: dict[str, Callable[[], dict[str, float]]] = {
        name: partial(_iterations, algo, options) for name, algo in algos.items()
    }
    times = interleave(turns, options.rounds)
    for name, algo in algos.items():
        times[name]["bytes"] = [float(_batch_bytes(algo, options.replay_batch))]
        algo.stop()
    return times


def _iterations(algo: Algorithm, options: Options) -> dict[str, float]:
    buffer, steps = algo.local_replay_buffer, options.num_envs
    total = dict.fromkeys(("rollout", "sample", "learner", "priorities", "sync"), 0.0)
    data: dict[str, Any] = {}

    def sample() -> None:
        data["episodes"] = _sample(algo, options.replay_batch)

    def update() -> None:
        data["results"] = algo.learner_group.update(
            episodes=data["episodes"],
            timesteps={phases.NUM_ENV_STEPS_SAMPLED_LIFETIME: options.replay_batch},
        )

    for _ in range(options.replay_updates):
        total["rollout"] += seconds(lambda: buffer.add(phases.rollout(algo, steps)))
        total["sample"] += seconds(sample)
        total["learner"] += seconds(update)
        total["priorities"] += seconds(lambda: _update_priorities(algo, data["results"]))
        total["sync"] += seconds(lambda: phases.sync(algo))
    total["iteration"] = sum(total.values())
    return {phase: value / options.replay_updates for phase, value in total.items()}


def _sample(algo: Algorithm, batch: int) -> list:
    config = algo.config
    return algo.local_replay_buffer.sample(
        num_items=batch,
        n_step=1,
        gamma=config.gamma,
        beta=config.replay_buffer_config.get("beta"),
        sample_episodes=True,
    )


def _update_priorities(algo: Algorithm, results: list) -> None:
    errors = [result[DEFAULT_MODULE_ID].pop(TD_ERROR_KEY).peek() for result in results]
    arrays = [np.asarray(error).reshape(-1) for series in errors for error in series]
    update_priorities_in_episode_replay_buffer(
        replay_buffer=algo.local_replay_buffer,
        td_errors={DEFAULT_MODULE_ID: {TD_ERROR_KEY: np.concatenate(arrays)}},
    )


def _batch_bytes(algo: Algorithm, batch: int) -> int:
    """Returns the bytes of a batch's observations and next observations."""
    learner = algo.learner_group._learner
    columns = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=_sample(algo, batch), shared_data={}
    )[DEFAULT_MODULE_ID]
    return sum(columns[name].nbytes for name in ("obs", "new_obs"))
