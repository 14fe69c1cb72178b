"""How attention's learner time grows: the encoder alone along four axes, and whole updates.

The encoder's curves take rows with a full context, at the first size of the comparison. Whole
updates answer three questions with everything that RLlib does around the encoder: the chunk
doubled at the same number of rows, the window doubled, and short episodes in long chunks.
"""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from tests.benchmarks import phases
from tests.benchmarks.encoder_pass import EncoderPass
from tests.benchmarks.labels import ATTENTION
from tests.benchmarks.models import attention_config, ppo_config
from tests.benchmarks.options import Options, Size
from tests.benchmarks.physical_limit import pass_flops
from tests.benchmarks.rollout_growth import FOREVER, Curves
from tests.benchmarks.timing import interleave, seconds

SHORT = 10  # env steps of a short episode

# A whole update of: the base, the chunk doubled, the window doubled.
BASE, CHUNK, WINDOW = "base", "chunk doubled", "window doubled"


def encoder_growth(options: Options) -> Curves:
    """Measures the encoder's forward and backward pass.

    Args:
        options: The command line.

    Returns:
        Seconds of a pass, one a round, and the FLOPs that it needs, by axis, point on it, and
        figure.
    """

    def point(rows: int = options.num_envs, **overrides: int) -> Callable[[], dict[str, float]]:
        attention = attention_config(options.sizes[0], options, **overrides)
        encoder_pass, flops = EncoderPass(attention, rows), pass_flops(attention, rows)
        return lambda: {"pass": encoder_pass(), "flops": flops}

    axes: dict[str, dict[str, Callable[[], dict[str, float]]]] = {
        "window": {str(n): point(window=n) for n in options.windows},
        "chunk": {str(n): point(max_seq_len=n) for n in options.chunks},
        "layers": {str(n): point(num_layers=n) for n in options.layers},
        "envs": {str(n): point(rows=n) for n in options.envs},
    }
    return {axis: interleave(points, options.pass_rounds) for axis, points in axes.items()}


def update_growth(options: Options) -> dict[str, dict[str, list[float]]]:
    """Measures whole updates, with one minibatch an epoch.

    Args:
        options: The command line.

    Returns:
        Seconds of an update, one a round, by case and figure.
    """
    size, chunk = options.sizes[0], options.chunk
    wide = Size(size.dim, 2 * size.window)
    return _measure(
        {
            BASE: one_chunk_each(size, chunk, options),
            CHUNK: one_chunk_each(size, 2 * chunk, options),
            WINDOW: one_chunk_each(wide, chunk, options),
        },
        options,
    )


def short_episodes(options: Options) -> dict[str, dict[str, list[float]]]:
    """Measures updates on episodes of 10 steps, in chunks as long as they are and much longer.

    RLlib appends an artificial step to each episode, so that 10 steps do not fit a chunk of 10
    but one of 11: both are measured.

    Args:
        options: The command line.

    Returns:
        Seconds of an update, one a round, by chunk length and figure.
    """

    def config(chunk: int) -> AlgorithmConfig:
        config = ppo_config(ATTENTION, options.sizes[0], options, max_seq_len=chunk)
        return config.environment(env_config={"length": SHORT})

    chunks = (SHORT, SHORT + 1, options.chunk)
    return _measure({str(chunk): config(chunk) for chunk in chunks}, options)


def one_chunk_each(size: Size, chunk: int, options: Options, **overrides: int) -> AlgorithmConfig:
    """Returns a config in which each sub-environment's fragment is one chunk with a full context.

    Args:
        size: Width and window.
        chunk: Steps of a chunk.
        options: The command line.
        **overrides: Fields of `AttentionConfig` to change.
    """
    steps = options.num_envs * chunk
    options = dataclasses.replace(options, batch=steps, minibatch=steps)
    # RLlib's artificial step at the end of a fragment must not open a row of its own.
    config = ppo_config(ATTENTION, size, options, max_seq_len=chunk + 1, **overrides)
    return config.environment(env_config={"length": FOREVER})


def _measure(
    configs: dict[str, AlgorithmConfig], options: Options
) -> dict[str, dict[str, list[float]]]:
    algos = {name: config.build_algo() for name, config in configs.items()}

    def turn(algo: Algorithm, episodes: Any) -> dict[str, float]:
        episodes = copy.deepcopy(episodes)
        return {"update": seconds(lambda: phases.update(algo, episodes))}

    data = {name: _second_fragment(algo) for name, algo in algos.items()}
    times = interleave(
        {name: partial(turn, algos[name], data[name]) for name in algos}, options.rounds
    )
    for algo in algos.values():
        algo.stop()
    return times


def _second_fragment(algo: Algorithm) -> Any:
    """The first one has no context before it."""
    steps = algo.config.train_batch_size_per_learner
    phases.rollout(algo, steps)
    return phases.rollout(algo, steps)
