"""The state of an old-stack model: the raw inputs of an episode's last steps, in one tensor.

RLlib's old stack hands a model its own earlier output as `state_in`, and stores one for each
chunk of training data. Each row here is one step, packed as in `window.py`:
`[observation | previous action and reward | valid]`, so a state never grows stale when weights
change. Shapes: B batch, T time, C context, R state rows, P packed size, E encoded previous action
and reward of one step, F features (those of the last few steps).
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from torch import Tensor
from torch.nn import functional as F

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.packed_window import packed_size, unpack_tokens
from rllib_attention.encoder.prev_inputs import PrevInputs


class StepState:
    """Packs steps into the state, and takes contexts and features out of it.

    Args:
        observation_space: Space of one preprocessed observation, a Box.
        action_space: The action space, nested or not.
        attention: The model's options.

    Raises:
        ValueError: If `prev_actions` is set and the action space has a part that cannot be encoded.
    """

    def __init__(
        self, observation_space: gym.Space, action_space: gym.Space, attention: AttentionConfig
    ):
        self.obs_shape = tuple(observation_space.shape or ())
        self.prev = PrevInputs(action_space, attention.prev_actions, attention.prev_rewards)
        self.context_len = attention.context_len
        # The oldest step of the context has features that reach further back. One row at least:
        # it tells whether this is an episode's first step.
        self.num_rows = max(1, self.context_len + self.prev.depth - 1, self.context_len)
        as_bytes = observation_space.dtype == np.uint8
        self.dtype = torch.uint8 if as_bytes else torch.float32
        self.encoded_size = self.prev.action_size + bool(self.prev.num_rewards)
        obs_size = int(torch.Size(self.obs_shape).numel())
        self.shape = (
            self.num_rows,
            packed_size(obs_size, self.encoded_size, as_bytes=as_bytes),
        )

    def initial(self) -> Tensor:
        """Returns the state before an episode's first step, (R, P)."""
        return torch.zeros(self.shape, dtype=self.dtype)

    def space(self) -> gym.spaces.Box:
        """Returns the space of a state."""
        dtype = np.uint8 if self.dtype == torch.uint8 else np.float32
        return gym.spaces.Box(0, 1, self.shape, dtype)

    def encode(self, actions: Any, rewards: Tensor | None, is_first: Tensor) -> Tensor:
        """Encodes each step's previous action and reward.

        Args:
            actions: RLlib's `prev_actions` of all steps in one batch dimension, flattened or in the
                structure of the space; None if all steps are first ones.
            rewards: RLlib's `prev_rewards`, likewise.
            is_first: Which steps are the first of their episode, (B, T); what RLlib gives as
                their previous action is a filler.

        Returns:
            (B, T, E), float32.
        """
        size = is_first.numel()
        out = torch.zeros(size, self.encoded_size, device=is_first.device)
        if self.prev.num_actions and actions is not None:
            out[:, : self.prev.action_size] = self._encode_actions(actions, size)
        if self.prev.num_rewards and rewards is not None:
            out[:, -1] = rewards.reshape(-1)
        return out.unflatten(0, is_first.shape).masked_fill(is_first.unsqueeze(-1), 0.0)

    def pack(self, obs: Tensor, encoded: Tensor, valid: Tensor) -> Tensor:
        """Packs steps: obs (B, T, *obs), encoded (B, T, E), valid (B, T) → (B, T, P)."""
        extra = torch.cat((encoded, valid.unsqueeze(-1).to(encoded)), dim=-1)
        if self.dtype == torch.uint8:
            extra = extra.view(torch.uint8)
        return torch.cat((obs.flatten(2).to(self.dtype), extra), dim=-1)

    def unpack(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Undoes `pack`: (B, S, P) → (B, S, *obs), (B, S, E), (B, S)."""
        obs, encoded, tags = unpack_tokens(rows, self.obs_shape, self.encoded_size)
        return obs, encoded, tags > 0

    def features(self, encoded: Tensor) -> Tensor:
        """Joins each step's own previous action and reward with those of the steps before it.

        Args:
            encoded: (B, R + T, E).

        Returns:
            The features of the last C + T steps, in the order of `PrevInputs`, (B, C + T, F).
        """
        first, last = self.num_rows - self.context_len, encoded.shape[1]
        size = self.prev.action_size
        actions = [
            encoded[:, first - back : last - back, :size] for back in range(self.prev.num_actions)
        ]
        rewards = [
            encoded[:, first - back : last - back, size:] for back in range(self.prev.num_rewards)
        ]
        return torch.cat((*actions, *rewards), dim=-1)

    def _encode_actions(self, actions: Any, num_steps: int) -> Tensor:
        """Encodes actions, (N, A)."""
        leaves = tree.flatten(actions)
        flat = torch.cat([leaf.reshape(num_steps, -1).float() for leaf in leaves], dim=-1)
        parts: list[Tensor] = []
        start = 0
        for space in self.prev.spaces:
            stop = start + (1 if isinstance(space, gym.spaces.Discrete) else _num_entries(space))
            parts += _encode_leaf(space, flat[:, start:stop])
            start = stop
        return torch.cat(parts, dim=-1)


def _num_entries(space: gym.Space) -> int:
    return int(torch.Size(space.shape or ()).numel())


def _encode_leaf(space: gym.Space, actions: Tensor) -> list[Tensor]:
    """Encodes the actions of one leaf, one-hot where discrete, (N, entries) → parts of (N, A').

    The old stack's actions count from 0, whatever the `start` of a discrete space.
    """
    if isinstance(space, gym.spaces.Discrete):
        sizes = [int(space.n)]
    elif isinstance(space, gym.spaces.MultiDiscrete):
        sizes = [int(n) for n in space.nvec.reshape(-1)]
    else:
        return [actions]
    return [F.one_hot(actions[:, i].long(), n).float() for i, n in enumerate(sizes)]
