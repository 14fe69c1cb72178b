"""Chunks that do not come from RLlib's connectors: what steps by hand must bring along.

Shapes: B batch, T time, C context, A row of a previous action and reward, R the rows of a context.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.inputs import ChunkContext
from rllib_attention.encoder.prev_inputs import PREV_ACTIONS, PREV_REWARDS, PrevInputs

_OBS = "obs"


def check_chunks(
    obs: Tensor,
    state: ChunkContext,
    obs_shape: tuple[int, ...],
    attention: AttentionConfig,
    prev: PrevInputs,
) -> None:
    """Checks the shapes of chunks and of their context.

    Args:
        obs: The chunks' observations.
        state: Their context.
        obs_shape: Shape of one observation.
        attention: The encoder's options.
        prev: The encoder's previous actions and rewards.

    Raises:
        ValueError: If a shape is not the expected one.
    """
    batch_size = len(obs) if obs.dim() else None
    _check(_OBS, obs, ("B", "T", *obs_shape))
    _check("state_in['context']", state.context, (batch_size, attention.context_len, *obs_shape))
    _check("state_in['context_length']", state.context_length, (batch_size,))
    if prev.size:
        # Without rows, zeros would pass for a previous action.
        rows = torch.zeros(()) if state.prev is None else state.prev
        _check("state_in['prev']", rows, (batch_size, "R", prev.row_size))


def rows_by_hand(inputs: dict[str, Any], state: ChunkContext, prev: PrevInputs) -> Tensor | None:
    """Takes a chunk's previous actions and rewards from the batch.

    Args:
        inputs: The batch.
        state: The chunk's context.
        prev: The encoder's previous actions and rewards.

    Returns:
        The rows of context and chunk, (B, R + T, A); None without such inputs.

    Raises:
        ValueError: If a column is missing and this is not the first step of every episode.
    """
    if not prev.size:
        return None
    shape = tuple(inputs[_OBS].shape[:2])
    assert state.prev is not None  # `check_chunks` has seen to it
    starts = (state.context_length == 0).unsqueeze(-1)
    none = torch.from_numpy(prev.none).to(state.prev.device)
    counts = {PREV_ACTIONS: prev.num_actions, PREV_REWARDS: prev.num_rewards}
    wanted = [name for name, count in counts.items() if count]
    missing = [name for name in wanted if name not in inputs]
    if not missing:
        actions, rewards = inputs.get(PREV_ACTIONS), inputs.get(PREV_REWARDS)
        rows = prev.tensor_rows(actions, rewards, shape).to(none.device)
    elif shape[1] == 1 and bool(starts.all()):
        rows = none.expand(*shape, -1)
    else:
        raise ValueError(
            f"The model reads {' and '.join(wanted)} of each step, but the batch has no "
            f"{' and no '.join(missing)}: expected them with shape {shape} in front, the action "
            "and reward just before each step. Fix: add "
            + " and ".join(f"`batch['{name}']`" for name in missing)
            + " beside `obs`, from each episode's second step on."
        )
    first = torch.where(starts, none, rows[:, 0]).unsqueeze(1)
    return torch.cat((state.prev, first, rows[:, 1:]), dim=1)


def _check(name: str, value: Tensor | np.ndarray, expected: tuple[Any, ...]) -> None:
    """Raises unless a tensor has a shape; letters and None stand for any size."""
    shape = tuple(value.shape)
    sizes = zip(shape, expected, strict=False)
    if len(shape) != len(expected) or any(s != e for s, e in sizes if isinstance(e, int)):
        wanted = ", ".join("B" if size is None else str(size) for size in expected)
        raise ValueError(
            f"`{name}` must have shape ({wanted}), B rows (of T time steps), got {shape}. Fix: "
            "give observations a batch and a time dimension, `obs.reshape(1, 1, ...)`, and each "
            "part of the state a batch dimension, `value.unsqueeze(0)`."
        )
