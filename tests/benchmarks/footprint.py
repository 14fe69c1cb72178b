"""Bytes per env step: what a fragment ships, and what a replay buffer stores.

Measured by pickling, which is what Ray does to ship: columns, lookback and bookkeeping together.
"""

from typing import Any

from ray import cloudpickle

from tests.benchmarks import phases
from tests.benchmarks.labels import ATTENTION, GTRXL, MLP, REPLAYING
from tests.benchmarks.models import ppo_config, replay_config
from tests.benchmarks.options import Options, Size


def shipped_bytes(size: Size, options: Options) -> dict[str, dict[str, float]]:
    """Measures the fragments that PPO's runners return.

    Args:
        size: Width and window.
        options: The command line.

    Returns:
        Bytes per env step by model, with the lookback (`whole`) and without it (`own`).
    """
    found = {}
    for model in options.models:
        algo = ppo_config(model, size, options).build_algo()
        phases.rollout(algo, options.batch)  # the first fragment has nothing to look back on
        data = phases.rollout(algo, options.batch)
        algo.stop()
        steps = phases.count_steps(data)
        own = data if model == GTRXL else _without_lookback(data)
        found[model] = {"whole": _size(data) / steps, "own": _size(own) / steps}
    return found


def stored_bytes(size: Size, options: Options) -> dict[str, dict[str, float]]:
    """Measures what replay buffers hold after they have been fed step by step.

    Args:
        size: Width and window.
        options: The command line; the longest of its runs is what attention samples.

    Returns:
        Bytes per env step by algorithm and model.
    """
    return {
        algorithm: {
            model: _stored(algorithm, size, options, run_len)
            for model, run_len in ((ATTENTION, max(options.run_lens)), (MLP, None))
        }
        for algorithm in REPLAYING
    }


def _stored(algorithm: str, size: Size, options: Options, run_len: int | None) -> float:
    algo = replay_config(algorithm, size, options, run_len=run_len).build_algo()
    buffer = algo.local_replay_buffer
    for _ in range(2 * options.episode_length):
        buffer.add(phases.rollout(algo, options.num_envs))
    algo.stop()
    return _size(buffer.episodes) / buffer.get_num_timesteps()


def _without_lookback(episodes: list) -> list:
    return [episode.slice(slice(0, None), len_lookback_buffer=0) for episode in episodes]


def _size(data: Any) -> int:
    return len(cloudpickle.dumps(data))
