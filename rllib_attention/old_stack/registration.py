"""Registers the old stack's model with RLlib, without importing RLlib or torch.

RLlib's `ModelCatalog` keeps custom models, pickled, in Ray Tune's registry, below the name that
`model={"custom_model": name}` refers to. What is registered here unpickles to the model's class, so
that `import rllib_attention` stays as cheap as importing that registry.
"""

from typing import TYPE_CHECKING

import ray
from ray.tune.registry import RLLIB_MODEL, _global_registry, _Registry

if TYPE_CHECKING:
    from rllib_attention.old_stack.model import AttentionModelV2


class ModelName(str):
    """A custom model's name that imports this package, and so registers it, when unpickled.

    A checkpoint of a config with a plain string could only be read after this import.
    """

    __slots__ = ()


MODEL_NAME = ModelName("attention")


class _ModelReference:
    """Unpickles to the model's class."""

    def __reduce__(self) -> tuple:
        return _model_class, ()


def register_model() -> None:
    """Registers the model for `model={"custom_model": "attention"}`; again does no harm.

    Remote workers, Tune trials and submitted jobs read the registry from Ray's own store, which
    is new after each `ray.init`; so this runs after each, and before the first.
    """
    # The global registry never forgets the id of the first job that it served. It is what this
    # process reads; a fresh one writes what the workers of the current job read.
    for registry in (_global_registry, _Registry()):
        registry.register(RLLIB_MODEL, MODEL_NAME, _ModelReference())


def register_at_init() -> None:
    """Registers the model now and after each later `ray.init`."""
    hooks = ray._private.worker._post_init_hooks
    if register_model not in hooks:
        hooks.append(register_model)
    register_model()


def _model_class() -> "type[AttentionModelV2]":
    from rllib_attention.old_stack.model import AttentionModelV2

    return AttentionModelV2
