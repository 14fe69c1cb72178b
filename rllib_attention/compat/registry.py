"""Ray's registry of the old API stack's custom models."""

from collections.abc import Callable
from typing import Any


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


def registered_env(name: str) -> Callable[[Any], Any] | None:
    """Return the function of `tune.register_env(name, function)`, None if there was no such call.

    `tune/registry.py`; RLlib itself has no public way to look one up.

    Args:
        name: The environment's name.
    """
    from ray.tune.registry import ENV_CREATOR, _global_registry

    if not _global_registry.contains(ENV_CREATOR, name):
        return None
    return _global_registry.get(ENV_CREATOR, name)
