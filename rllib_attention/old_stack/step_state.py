"""The state of an old-stack model: the raw inputs of an episode's last steps, in one tensor.

RLlib's old stack hands a model its own earlier output as `state_in`, and stores one for each
chunk of training data. Each row here is one step, packed as in `packed_window.py`:
`[observation | previous action and reward | valid]`, so a state never grows stale when weights
change. Shapes: B batch, T time, C context, R state rows, P packed size, A row of a previous action
and reward.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

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
        # Rows before the context that its oldest step reaches back to. One row in all at least:
        # it tells whether this is an episode's first step.
        self.reach = max(0, self.prev.depth - 1)
        self.num_rows = max(1, self.context_len + self.reach)
        as_bytes = observation_space.dtype == np.uint8
        self.dtype = torch.uint8 if as_bytes else torch.float32
        obs_size = int(torch.Size(self.obs_shape).numel())
        self.shape = (
            self.num_rows,
            packed_size(obs_size, self.prev.row_size, as_bytes=as_bytes),
        )

    def initial(self) -> Tensor:
        """Returns the state before an episode's first step, (R, P)."""
        return torch.zeros(self.shape, dtype=self.dtype)

    def space(self) -> gym.spaces.Box:
        """Returns the space of a state."""
        dtype = np.uint8 if self.dtype == torch.uint8 else np.float32
        return gym.spaces.Box(0, 1, self.shape, dtype)

    def previous_rows(self, actions: Any, rewards: Tensor | None, is_first: Tensor) -> Tensor:
        """Returns each step's row of a previous action and reward.

        Args:
            actions: RLlib's `prev_actions` of all steps in one batch dimension, flattened or in the
                structure of the space; None if all steps are first ones.
            rewards: RLlib's `prev_rewards`, likewise.
            is_first: Which steps are the first of their episode, (B, T); what RLlib gives as
                their previous action is a filler.

        Returns:
            (B, T, A), float32.
        """
        none = torch.from_numpy(self.prev.none).to(is_first.device)
        if not self.prev.size or is_first.all():
            return none.expand(*is_first.shape, -1)
        rows = self.prev.tensor_rows(actions, rewards, tuple(is_first.shape))
        return torch.where(is_first.unsqueeze(-1), none, rows)

    def pack(self, obs: Tensor, previous: Tensor, valid: Tensor) -> Tensor:
        """Packs steps: obs (B, T, *obs), previous (B, T, A), valid (B, T) → (B, T, P)."""
        extra = torch.cat((previous, valid.unsqueeze(-1).to(previous)), dim=-1)
        if self.dtype == torch.uint8:
            extra = extra.view(torch.uint8)
        return torch.cat((obs.flatten(2).to(self.dtype), extra), dim=-1)

    def unpack(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Undoes `pack`: (B, S, P) → (B, S, *obs), (B, S, A), (B, S).

        Nothing came before steps that are none: zeros would be the first action.
        """
        obs, previous, tags = unpack_tokens(rows, self.obs_shape, self.prev.row_size)
        valid = tags > 0
        none = torch.from_numpy(self.prev.none).to(previous)
        return obs, torch.where(valid.unsqueeze(-1), previous, none), valid
