"""What this package needs of Ray that Ray does not promise: the versions, and private names.

Everything else goes through RLlib's public extension points. A private name is used here and
nowhere else, with the place in Ray where it lives (below `ray/`, as of 2.60). What this package
assumes about RLlib's behaviour is stated, one by one, in `tests/test_rllib_contract.py`.

This module imports Ray inside its functions only, so that it can be read without Ray.
"""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.connectors.connector_v2 import ConnectorV2
    from ray.rllib.core.distribution.distribution import Distribution
    from ray.rllib.core.models.catalog import Catalog
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.env_runner import EnvRunner
    from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer

# Versions

MIN_RAY_VERSION = (2, 55)
MAX_RAY_VERSION = (2, 60)
"""The newest minor version that the tests have passed with."""
RAY_REQUIREMENT = (
    f"ray[rllib]>={MIN_RAY_VERSION[0]}.{MIN_RAY_VERSION[1]},"
    f"<{MAX_RAY_VERSION[0]}.{MAX_RAY_VERSION[1] + 1}"
)
ALLOW_UNTESTED_RAY = "RLLIB_ATTENTION_ALLOW_UNTESTED_RAY"
"""Environment variable that lets newer versions of Ray in."""


def has_supported_ray() -> bool:
    """Return whether Ray is installed, and refuse a version that was not tested.

    Returns:
        True with a supported Ray, False without any.

    Raises:
        ImportError: See `check_ray_version`; or one of Ray's own dependencies is missing.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        # A Ray that is there but misses a dependency is broken, not absent.
        if error.name != "ray":
            raise
        return False
    # Without Ray, a plain folder of that name on the path (Ray leaves one in the temporary
    # folder) imports as an empty namespace package.
    if ray.__file__ is None:
        return False
    check_ray_version(ray.__version__)
    return True


def check_ray_version(version: str) -> None:
    """Refuse versions of Ray with which results are not known to be right.

    Older ones lack what this package builds on. In newer ones RLlib's internals may have moved
    without an error, so they are let in by the environment variable `ALLOW_UNTESTED_RAY` only.

    Args:
        version: The installed version, as in `ray.__version__`.

    Raises:
        ImportError: The version is older than the oldest supported one, newer than the newest
            tested one (without the environment variable), or no version.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    minor = (int(match[1]), int(match[2])) if match else (0, 0)
    if MIN_RAY_VERSION <= minor <= MAX_RAY_VERSION:
        return
    message = (
        f"rllib_attention needs {RAY_REQUIREMENT}, found ray {version}. "
        f'Fix: `pip install "{RAY_REQUIREMENT}"`.'
    )
    if minor < MIN_RAY_VERSION:
        raise ImportError(message)
    if os.environ.get(ALLOW_UNTESTED_RAY) != "1":
        raise ImportError(
            f"{message} To try a newer Ray, run `pytest tests/test_rllib_contract.py` from the "
            f"source with it, then set {ALLOW_UNTESTED_RAY}=1 on the driver and on all workers."
        )
    warnings.warn(
        f"rllib_attention was not tested with ray {version} and runs because "
        f"{ALLOW_UNTESTED_RAY}=1 is set; tested: {RAY_REQUIREMENT}.",
        RuntimeWarning,
        stacklevel=2,
    )


# Algorithm configs

CONNECTORS = ("env_to_module_connector", "learner_connector")
"""The config's settings that hold a connector factory."""


def connector_factory(config: AlgorithmConfig, name: str) -> Callable[..., Any] | None:
    """Return the user's connector factory, or None.

    `rllib/algorithms/algorithm_config.py`. Public: only the setters,
    `config.env_runners(env_to_module_connector=)` and `config.learners(learner_connector=)`.

    Args:
        config: Any config.
        name: One of `CONNECTORS`.
    """
    return getattr(config, f"_{name}")


def user_module_spec(config: AlgorithmConfig) -> RLModuleSpec | MultiRLModuleSpec | None:
    """Return the module spec that the user set, or None.

    `rllib/algorithms/algorithm_config.py`. Public: `config.rl_module_spec`, which is a merge with
    the algorithm's default, so that it does not tell what the user has set.

    Args:
        config: Any config.
    """
    return config._rl_module_spec


def is_frozen(config: AlgorithmConfig) -> bool:
    """Return whether a config refuses changes, as those of built algorithms do.

    `rllib/algorithms/algorithm_config.py`. Public: only `config.freeze()`.

    Args:
        config: Any config.
    """
    return config._is_frozen


def user_model_config(config: AlgorithmConfig) -> dict[str, Any] | DefaultModelConfig:
    """Return the model config that the user set, as it was given.

    `rllib/algorithms/algorithm_config.py`. Public: `config.model_config`, which has the algorithm's
    own additions in it.

    Args:
        config: Any config.
    """
    return config._model_config


def spec_model_config(spec: RLModuleSpec) -> dict[str, Any]:
    """Return a module spec's own model config, as a dict.

    What `RLModuleSpec._get_model_config` in `rllib/core/rl_module/rl_module.py` returns, by the
    public attribute.

    Args:
        spec: The spec of one module.
    """
    return as_dict(spec.model_config)


def as_dict(model_config: Any) -> dict[str, Any]:
    """Return a model config (None, a dict, or RLlib's dataclass) as a new dict.

    Args:
        model_config: The model config.
    """
    if dataclasses.is_dataclass(model_config) and not isinstance(model_config, type):
        return dataclasses.asdict(model_config)
    return dict(model_config or {})


# Runners, catalogs, distributions


def env_to_module_pieces(runner: EnvRunner | None) -> list[ConnectorV2]:
    """Return the pieces of a runner's env-to-module pipeline.

    `rllib/env/single_agent_env_runner.py` and `multi_agent_env_runner.py`.

    Args:
        runner: The runner; None, or one of the user's without a pipeline, has no pieces.
    """
    return list(getattr(getattr(runner, "_env_to_module", None), "connectors", ()))


def catalog_model_config(catalog: Catalog) -> dict[str, Any]:
    """Return a catalog's model config, RLlib's defaults included.

    `rllib/core/models/catalog.py`.

    Args:
        catalog: A built catalog.
    """
    return catalog._model_config_dict


def child_distributions(distribution: Distribution) -> list[Distribution]:
    """Return the parts of a nested action's distribution, in the order of `tree.flatten`.

    `TorchMultiDistribution` in `rllib/core/distribution/torch/torch_distribution.py`.

    Args:
        distribution: The distribution.
    """
    return distribution._flat_child_distributions


# Replay buffers (`rllib/utils/replay_buffers/`)


def num_stored_steps(buffer: EpisodeReplayBuffer) -> int:
    """Return the env steps that a buffer compares with its capacity before it evicts.

    Public: `get_num_timesteps()`, which counts what can be sampled instead.

    Args:
        buffer: One of the four episode buffers.
    """
    return buffer._num_timesteps


def sampled_positions(buffer: EpisodeReplayBuffer) -> Iterator[tuple[int, int]]:
    """Yield where each of the latest samples of `PrioritizedEpisodeReplayBuffer` starts.

    Known until the next `update_priorities`. The samples themselves have new random IDs.

    Args:
        buffer: The buffer.

    Yields:
        The index of the episode in `buffer.episodes`, and of the first step in that episode.
    """
    evicted = buffer.get_num_episodes_evicted()
    for tree_index in buffer._last_sampled_indices:
        episode, start, _ = buffer._indices[buffer._tree_idx_to_sample_idx[tree_index]]
        yield episode - evicted, start


def restore_sample_indices(buffer: EpisodeReplayBuffer) -> None:
    """Complete the restored state of `MultiAgentPrioritizedEpisodeReplayBuffer`.

    Its `set_state` leaves one index out, which the first eviction after a restore reads.

    Args:
        buffer: The buffer, after `set_state`.
    """
    buffer._sample_idx_to_tree_idx = {
        sample_index: tree_index
        for tree_index, sample_index in buffer._tree_idx_to_sample_idx.items()
    }


# The old API stack's registry of custom models


def register_custom_model(name: str, model: Any) -> None:
    """Register a model for `model={"custom_model": name}` in this process and for its job.

    `tune/registry.py`. Public: `ModelCatalog.register_custom_model`, which imports RLlib and torch,
    registers for the first `ray.init` only, and cannot take a reference to a class.

    Args:
        name: The name.
        model: What unpickles to the model's class.
    """
    from ray.tune.registry import RLLIB_MODEL, _global_registry, _Registry

    # The global registry never forgets the id of the first job that it served. It is what this
    # process reads; a fresh one writes what the workers of the current job read.
    for registry in (_global_registry, _Registry()):
        registry.register(RLLIB_MODEL, name, model)


def call_after_each_init(function: Callable[[], None]) -> None:
    """Have Ray call a function after each later `ray.init`; again does no harm.

    `_private/worker.py`; there is no public way.

    Args:
        function: Takes no arguments.
    """
    from ray._private import worker

    if function not in worker._post_init_hooks:
        worker._post_init_hooks.append(function)
