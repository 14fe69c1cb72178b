"""What a user has set in an algorithm's config, apart from the algorithm's own additions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

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


def steps_otherwise(config: AlgorithmConfig) -> bool:
    """Return whether something comes between gradients and the steps of optimizers.

    Gradient scalers, schedulers of torch, or gradients that are not looked at. Public: only
    `config.experimental(_torch_grad_scaler_class=, _torch_lr_scheduler_classes=)` and
    `config.training(torch_skip_nan_gradients=)` in `rllib/algorithms/algorithm_config.py`.

    Args:
        config: Any config of the new API stack.
    """
    has_more = config._torch_grad_scaler_class or config._torch_lr_scheduler_classes
    return bool(has_more or config.torch_skip_nan_gradients)


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
