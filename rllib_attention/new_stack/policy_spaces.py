"""A policy's spaces: what is one observation, and how the module counts actions."""

from collections.abc import Hashable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.connectors.module_to_env import NormalizeAndClipActions
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space, normalize_action

from rllib_attention.new_stack.policy_parts import PolicyParts


class PolicySpaces:
    """Checks observations, and turns the environment's actions into the module's.

    Args:
        parts: What the policy is made of.
    """

    def __init__(self, parts: PolicyParts):
        self._observations = parts.observation_space
        self._obs_struct = get_base_struct_from_space(parts.observation_space)
        self._obs_shapes = [space.shape for space in tree.flatten(self._obs_struct)]
        self._action_struct = get_base_struct_from_space(parts.action_space)
        self._normalizes = any(
            piece.normalize_actions for piece in parts.module_to_env[NormalizeAndClipActions]
        )

    def computed(self, action: Any) -> Any:
        """Turns an action for the environment into one of the module's distribution."""
        arrays = tree.map_structure_up_to(self._action_struct, np.asarray, action)
        return normalize_action(arrays, self._action_struct) if self._normalizes else arrays

    def names_sessions(self, obs: Any) -> bool:
        """Returns whether a dict holds observations by session, rather than being one.

        A dict with a Dict space's own keys is an observation. It cannot be both: the values of
        the one fit the space, those of the other its parts, and `check` looks at them.
        """
        if not isinstance(obs, Mapping):
            return False
        space = self._observations
        return not (isinstance(space, gym.spaces.Dict) and set(obs) == set(space.spaces))

    def check(self, session: Hashable, obs: Any) -> None:
        """Checks an observation's structure and shapes.

        Raises:
            ValueError: If they are not those of the space.
        """
        try:
            shapes = [np.shape(leaf) for leaf in tree.flatten_up_to(self._obs_struct, obs)]
        except (TypeError, ValueError):
            shapes = None
        if shapes == self._obs_shapes:
            return
        got = type(obs).__name__ + ("" if shapes is None else f" of shapes {shapes}")
        raise ValueError(
            f"`act` expects an observation of {self._observations}, got {got} in session "
            f"{session!r}. Fix: `act(obs)` with one observation, without a batch dimension, or "
            "`act({session: obs})`."
        )
