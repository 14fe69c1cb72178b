"""How attention's rollout time grows with window, layers and sub-environments.

Episodes never end, so that every window is full. Each point is measured twice: `steady` without a
weight sync, and `synced` with one at the start of the fragment, as in every training iteration;
then the cache is first rebuilt from the raw observations of the whole receptive field.
"""

from functools import partial

from ray.rllib.algorithms.algorithm import Algorithm

from tests.benchmarks import phases
from tests.benchmarks.labels import ATTENTION
from tests.benchmarks.models import ppo_config
from tests.benchmarks.options import Options, Size
from tests.benchmarks.timing import interleave, seconds

FOREVER = 10**9
Curves = dict[str, dict[str, dict[str, list[float]]]]


def rollout_growth(options: Options) -> Curves:
    """Measures seconds per env step along three axes.

    Args:
        options: The command line.

    Returns:
        Seconds per env step, one a round, by axis, point on it, and figure.
    """
    size = options.sizes[0]
    points: dict[str, dict[str, Algorithm]] = {
        "window": {
            str(window): _build(Size(size.dim, window), options)
            for window in options.rollout_windows
        },
        "layers": {str(n): _build(size, options, num_layers=n) for n in options.layers},
        "envs": {str(n): _build(size, options, num_envs=n) for n in options.envs},
    }
    curves = {}
    for axis, algos in points.items():
        curves[axis] = interleave(
            {
                point: partial(_turn, algo, options.batch // options.num_envs)
                for point, algo in algos.items()
            },
            options.rounds,
        )
        for algo in algos.values():
            algo.stop()
    return curves


def _build(size: Size, options: Options, *, num_envs: int = 0, **overrides: int) -> Algorithm:
    config = ppo_config(ATTENTION, size, options, **overrides)
    config.environment(env_config={"length": FOREVER})
    if num_envs:
        config.env_runners(num_envs_per_env_runner=num_envs)
    algo = config.build_algo()
    phases.rollout(algo, size.window * config.num_envs_per_env_runner)  # fills the windows
    return algo


def _turn(algo: Algorithm, fragment: int) -> dict[str, float]:
    """`fragment` env steps of each sub-environment, as many as in the comparison."""
    steps = fragment * algo.config.num_envs_per_env_runner
    steady = seconds(lambda: phases.rollout(algo, steps)) / steps
    phases.sync(algo)
    return {"steady": steady, "synced": seconds(lambda: phases.rollout(algo, steps)) / steps}
