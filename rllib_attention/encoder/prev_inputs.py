"""Previous actions and rewards as features of each step's input.

Shapes: T time, A action features, F features of one step.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.utils.spaces.space_utils import batch, get_base_struct_from_space


class PrevInputs:
    """Encodes the last few actions and rewards before each step.

    The features of step t are a_{t-1} … a_{t-n}, one-hot where discrete, then r_{t-1} … r_{t-m};
    zeros before the episode's start. Actions are those of the policy, before RLlib clips or
    unsquashes them for the environment.

    Args:
        action_space: The module's action space, nested or not; None only without actions.
        num_actions: Previous actions n.
        num_rewards: Previous rewards m.

    Raises:
        ValueError: If the action space has a part that cannot be encoded.
    """

    def __init__(self, action_space: gym.Space | None, num_actions: int, num_rewards: int):
        self.num_actions, self.num_rewards = num_actions, num_rewards
        self.depth = max(num_actions, num_rewards)
        self.spaces = tree.flatten(get_base_struct_from_space(action_space)) if num_actions else []
        self.action_size = sum(_size(space) for space in self.spaces)
        self.size = num_actions * self.action_size + num_rewards

    def sequence(self, actions: Any, rewards: Any, num_past: int, num_steps: int) -> np.ndarray:
        """Returns the features of `num_steps` consecutive steps.

        Args:
            actions: The `num_past` actions before the first step, then at least
                `num_steps - 1` more: a list of actions or a batched structure.
            rewards: The rewards of the same steps.
            num_past: Actions and rewards that lie before the first step.
            num_steps: Steps to encode, T.

        Returns:
            (T, F), float32.
        """
        out = np.zeros((num_steps, self.size), np.float32)
        column = 0
        encoded = self._encode(actions) if self.num_actions else np.zeros((0, 0), np.float32)
        for count, values in (
            (self.num_actions, encoded),
            (self.num_rewards, np.asarray(rewards, np.float32).reshape(-1, 1)),
        ):
            for back in range(1, count + 1):
                width = values.shape[1]
                first = max(0, back - num_past)  # earlier steps lie before the history
                source = values[num_past + first - back : num_past + num_steps - back]
                out[first : first + len(source), column : column + width] = source
                column += width
        return out

    def advance(self, features: np.ndarray, action: Any, reward: float) -> np.ndarray:
        """Returns the features of the next step.

        Args:
            features: Those of the step before, (F,).
            action: The action of the step before.
            reward: Its reward.

        Returns:
            (F,): all but the oldest move one back, the new ones come first.
        """
        split = self.num_actions * self.action_size
        actions, rewards = features[:split], features[split:]
        if self.num_actions:
            actions = np.concatenate((self._encode([action])[0], actions[: -self.action_size]))
        if self.num_rewards:
            rewards = np.concatenate(([np.float32(reward)], rewards[:-1]))
        return np.concatenate((actions, rewards))

    def continued(self, features: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Completes features that were made without the actions and rewards before their start.

        Args:
            features: (T, F).
            first: The true features of the first step, (F,).

        Returns:
            (T, F): what reaches back before the first step is taken from `first`.
        """
        out, offset = features.copy(), 0
        for count, width in ((self.num_actions, self.action_size), (self.num_rewards, 1)):
            for step in range(min(count, len(out))):
                known = step * width
                tail = (count - step) * width
                out[step, offset + known : offset + count * width] = first[offset : offset + tail]
            offset += count * width
        return out

    def _encode(self, actions: Any) -> np.ndarray:
        """Returns the features of each action, (T, A)."""
        if isinstance(actions, list):
            if not actions:
                return np.zeros((0, self.action_size), np.float32)
            actions = batch(actions)
        leaves = tree.flatten(actions)
        return np.concatenate(
            [_encode_leaf(space, leaf) for space, leaf in zip(self.spaces, leaves, strict=True)],
            axis=1,
        )


def _size(space: gym.Space) -> int:
    """Returns how many features one leaf of an action space takes."""
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise ValueError(
        "`prev_actions` needs Discrete, MultiDiscrete, MultiBinary or Box actions (or Dict and "
        f"Tuple of these), got {space}. Use `use_attention(config, prev_actions=0)`."
    )


def _encode_leaf(space: gym.Space, actions: np.ndarray) -> np.ndarray:
    """Encodes the actions of one leaf, (T, ...) → (T, A').

    RLlib's distributions count from 0, whatever the `start` of a discrete space.
    """
    actions = np.asarray(actions)
    if isinstance(space, gym.spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[actions.reshape(-1).astype(np.int64)]
    actions = actions.reshape(len(actions), math.prod(space.shape or ()))  # may be none
    if isinstance(space, gym.spaces.MultiDiscrete):
        sizes = space.nvec.reshape(-1)
        columns = actions.astype(np.int64).T
        return np.concatenate(
            [np.eye(int(n), dtype=np.float32)[c] for n, c in zip(sizes, columns, strict=True)],
            axis=1,
        )
    return actions.astype(np.float32)
