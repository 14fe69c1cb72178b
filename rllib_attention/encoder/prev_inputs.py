"""Previous actions and rewards as inputs of each step.

They are carried raw, one row for each step, and turned into features in one place, by `encode`:
history, fragments, chunks, windows and states hold nothing but rows.

Shapes: N steps, S consecutive steps, A size of a row, P size of a step's stacked rows, F features.
"""

import math
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.utils.spaces.space_utils import batch, get_base_struct_from_space
from torch import Tensor

# Columns from which steps by hand take them, as in RLlib's old API stack.
PREV_ACTIONS, PREV_REWARDS = "prev_actions", "prev_rewards"
# A discrete entry before the first action: one-hot encoded it is all zeros.
_NO_ACTION = -1

_Array = TypeVar("_Array", np.ndarray, Tensor)


class PrevInputs:
    """The last few actions and rewards before each step.

    The row of step t is what happened just before it: (a_{t-1}, r_{t-1}). The features of step t
    are a_{t-1} … a_{t-n}, one-hot where discrete, then r_{t-1} … r_{t-m}; zeros before the
    episode's start. Actions are those of the policy, before RLlib clips or unsquashes them for the
    environment; RLlib's distributions count from 0, whatever the `start` of a discrete space.

    Args:
        action_space: The module's action space, nested or not; None only without actions.
        num_actions: Previous actions n.
        num_rewards: Previous rewards m.

    Attributes:
        depth: How many rows the features of a step reach back: max(n, m).
        row_size: A.
        size: P, what a step carries once the rows that it needs are stacked.
        encoded_size: F.
        none: The row of an episode's first step, (A,), float32.

    Raises:
        ValueError: If the action space has a part that cannot be encoded.
    """

    def __init__(self, action_space: gym.Space | None, num_actions: int, num_rewards: int):
        self.num_actions, self.num_rewards = num_actions, num_rewards
        self.depth = max(num_actions, num_rewards)
        spaces = tree.flatten(get_base_struct_from_space(action_space)) if num_actions else []
        # For each entry of a flat action: its number of choices, or None for a plain number.
        choices = [count for space in spaces for count in _entries(space)]
        self._width = len(choices)
        self.row_size = self._width + bool(num_rewards)
        self.none = np.zeros(self.row_size, np.float32)
        self.none[: self._width] = [0.0 if count is None else _NO_ACTION for count in choices]
        # For each feature: the stacked entry that it is made of, and the choice that it stands for.
        stacked = [*choices * num_actions, *[None] * num_rewards]
        self.size = len(stacked)
        features = [
            (entry, choice)
            for entry, count in enumerate(stacked)
            for choice in ([None] if count is None else range(count))
        ]
        self.encoded_size = len(features)
        self._source = np.array([entry for entry, _ in features], np.int64)
        self._choice = np.array([c if c is not None else np.nan for _, c in features], np.float32)

    def rows(self, actions: Any, rewards: Any, num_rows: int) -> np.ndarray:
        """Flattens consecutive actions and rewards.

        Args:
            actions: A list of N actions, or a batched structure of them.
            rewards: N rewards.
            num_rows: N.

        Returns:
            The rows of the steps after them, (N, A), float32.
        """
        parts: list[np.ndarray] = []
        if self.num_actions and num_rows:
            batched = batch(actions) if isinstance(actions, list) else actions
            parts += [np.asarray(leaf).reshape(num_rows, -1) for leaf in tree.flatten(batched)]
        if self.num_rewards and num_rows:
            parts.append(np.asarray(rewards).reshape(num_rows, 1))
        if not parts:
            return np.zeros((num_rows, self.row_size), np.float32)
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def tensor_rows(self, actions: Any, rewards: Any, shape: tuple[int, ...]) -> Tensor:
        """Flattens actions and rewards that are tensors already.

        Args:
            actions: A tensor or structure of them, `shape` in front; not read without actions.
            rewards: `shape`; not read without rewards.
            shape: The leading dimensions, such as (B, T).

        Returns:
            (*shape, A), float32.
        """
        leaves = tree.flatten(actions) if self.num_actions else []
        parts = [torch.as_tensor(leaf).reshape(*shape, -1) for leaf in leaves]
        if self.num_rewards:
            parts.append(torch.as_tensor(rewards).reshape(*shape, 1))
        return torch.cat([part.float() for part in parts], dim=-1)

    def stack(self, rows: _Array) -> _Array:
        """Joins each step's row with those before it that its features need.

        Args:
            rows: (..., depth - 1 + S, A).

        Returns:
            (..., S, P): newest first, actions before rewards.
        """
        width, first = self._width, self.depth - 1
        stop = rows.shape[-2]
        parts = [rows[..., first - i : stop - i, :width] for i in range(self.num_actions)]
        parts += [rows[..., first - i : stop - i, width:] for i in range(self.num_rewards)]
        if isinstance(rows, Tensor):
            return torch.cat(parts, dim=-1)
        return np.concatenate(parts, axis=-1)

    def sequence(self, actions: Any, rewards: Any, num_past: int, num_steps: int) -> np.ndarray:
        """Returns what S consecutive steps of an episode carry.

        Args:
            actions: The `num_past` actions before the first step, then at least `num_steps - 1`
                more: a list of actions or a batched structure.
            rewards: The rewards of the same steps.
            num_past: Actions and rewards that lie before the first step; before them lies the
                episode's start.
            num_steps: S.

        Returns:
            (S, P), float32.
        """
        if not self.size:
            return np.zeros((num_steps, 0), np.float32)
        known = self.rows(actions, rewards, num_past + num_steps - 1)
        return self.stack(self.padded(known, self.depth - 1 + num_steps))

    def padded(self, rows: np.ndarray, num_rows: int) -> np.ndarray:
        """Returns exactly the last `num_rows` rows, with `none` before an episode's first."""
        missing = max(0, num_rows - len(rows))
        front = np.broadcast_to(self.none, (missing, self.row_size))
        return np.concatenate((front, rows[len(rows) - (num_rows - missing) :]))

    def tables(self) -> tuple[Tensor, Tensor]:
        """Returns, of each feature, the entry that it is made of and the choice, (F,) each."""
        return torch.from_numpy(self._source), torch.from_numpy(self._choice)

    def encode(self, stacked: Tensor, source: Tensor, choice: Tensor) -> Tensor:
        """Turns what steps carry into features, one-hot where discrete.

        Args:
            stacked: (..., P).
            source: From `tables`, on the same device.
            choice: From `tables`, on the same device.

        Returns:
            (..., F).
        """
        numbers = stacked.index_select(-1, source)
        chosen = (numbers == choice).to(stacked.dtype)
        return torch.where(choice.isnan(), numbers, chosen)


def _entries(space: gym.Space) -> list[int | None]:
    """Returns the number of choices of each entry of one leaf, None for plain numbers."""
    if isinstance(space, gym.spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, gym.spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return [None] * math.prod(space.shape)
    raise ValueError(
        "`prev_actions` needs Discrete, MultiDiscrete, MultiBinary or Box actions (or Dict and "
        f"Tuple of these), got {space}. Use `use_attention(config, prev_actions=0)`."
    )
