"""Builds the environment that episodes are recorded in."""

import importlib
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_attention.compat import registered_env

_PICTURES = "rgb_array"


def make_env(
    config: AlgorithmConfig | None, env: Any = None, env_config: dict[str, Any] | None = None
) -> gym.Env | MultiAgentEnv:
    """Returns an environment, which renders pictures if it can.

    Args:
        config: The config of the policy's training, if known: for what is left out.
        env: An environment; or what makes one: an ID of Gymnasium or of Tune, "module:attribute", a
            class or a function that takes an `env_config`. None for that of the training.
        env_config: Its options; None for those of the training if `env` is None, else for none.

    Raises:
        ValueError: If there is no such environment, or none is given and none is known.
    """
    if isinstance(env, gym.Env | MultiAgentEnv):
        return env
    if env is None:
        env = None if config is None else config.env
        env_config = config.env_config if config is not None and env_config is None else env_config
    if env is None:
        raise ValueError(
            "An environment is needed, since the policy comes without one. Fix: `env=` with an "
            "environment, an ID of Gymnasium, or 'module:attribute'."
        )
    context = EnvContext(env_config or {}, worker_index=0)
    if not isinstance(env, str):
        return env(context)
    if (creator := registered_env(env)) is not None:
        return creator(context)
    return _of_attribute(env, context) or _of_gymnasium(env, context)


def _of_attribute(name: str, context: EnvContext) -> Any:
    """Makes an environment by "module:attribute", None if the name is none of these."""
    module, colon, attribute = name.partition(":")
    if not colon:
        return None
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ValueError(
            f"`env` expects 'module:attribute' of a module that can be imported, got {name!r}: "
            f"{error}. Fix: run where {module!r} is, or set PYTHONPATH."
        ) from error
    return None if found is None else found(context)


def _of_gymnasium(name: str, context: EnvContext) -> gym.Env:
    try:
        env = gym.make(name, **context)
    except gym.error.Error as error:
        raise ValueError(
            f"`env` expects an ID that Gymnasium or Tune knows, or 'module:attribute', got {name!r}"
            f": {error}. Fix: 'module:attribute' names a class or a function that takes an "
            "`env_config`; names of `tune.register_env` are known only where that was called."
        ) from error
    if "render_mode" in context or _PICTURES not in env.metadata.get("render_modes", ()):
        return env
    env.close()
    return gym.make(name, **context, render_mode=_PICTURES)
