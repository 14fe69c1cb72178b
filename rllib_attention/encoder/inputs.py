"""What an encoder is given, typed, and how it travels in RLlib's `STATE_IN`.

- `ChunkContext` (training on chunks, steps by hand): `obs` (B, T, *obs), context in `STATE_IN`;
- `RolloutStep` (RLlib's rollouts): `obs` (B, *obs), slot and time step in `STATE_IN`;
- packed windows (DQN, SAC and their kin): all in `obs`, no `STATE_IN`. See `packed_window.py`.

Shapes: B batch, T time, C context, A row of a previous action and reward, P stacked rows, R the
rows of a chunk with its context: C + max(0, depth - 1).
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from ray.rllib.core.models.base import CRITIC
from torch import Tensor

_CONTEXT, _CONTEXT_LENGTH, _CHUNK_LENGTH = "context", "context_length", "chunk_length"
_HANDLE, _PREV = "handle", "prev"

_Array = TypeVar("_Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class ChunkContext(Generic[_Array]):
    """What came before each chunk of a batch.

    Attributes:
        context: Observations of the C steps before the chunk, the newest last, (B, C, *obs).
        context_length: How many of them are real, (B,); the last ones. From our learner connector
            an array, also beside tensors: it has checked the observations, and layouts need it.
        chunk_length: How many of the chunk's steps are real, (B,); the first ones. None where
            nobody pads chunks: all of them. An array as `context_length` is.
        prev: Rows of previous actions and rewards, None without such inputs. With a
            `chunk_length`, of context and chunk, (B, R + T, A); else of the context, (B, R, A),
            and the chunk's are in the batch.
    """

    context: _Array
    context_length: _Array | np.ndarray
    chunk_length: _Array | np.ndarray | None = None
    prev: _Array | None = None

    def after(self, rows: Tensor, prev: Tensor | None) -> "ChunkContext[Tensor]":
        """Returns the context of the step behind a chunk without padding: its last C steps.

        Args:
            rows: Observations of context and chunk, (B, C + T, *obs).
            prev: Rows of previous actions and rewards of both, (B, R + T, A), or None.
        """
        size, steps = self.context.shape[1], rows.shape[1] - self.context.shape[1]
        length = (self.context_length + steps).clip(max=size)
        kept = None if prev is None else prev[:, steps:]
        return ChunkContext(rows[:, steps:], length, prev=kept)

    def to_state(self) -> dict[str, Any]:
        """Returns the `STATE_IN` that `from_state` reads."""
        state = {
            _CONTEXT: self.context,
            # RLlib's own pieces cannot handle numbers without a dimension: (B, 1).
            _CONTEXT_LENGTH: self.context_length[..., None],
            _CHUNK_LENGTH: self.chunk_length,
            _PREV: self.prev,
        }
        return {key: value for key, value in state.items() if value is not None}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ChunkContext":
        """Reads what `to_state` wrote."""
        return cls(
            state[_CONTEXT],
            state[_CONTEXT_LENGTH][..., 0],
            state.get(_CHUNK_LENGTH),
            state.get(_PREV),
        )


@dataclass(frozen=True)
class RolloutStep(Generic[_Array]):
    """The newest step of some running episodes, whose past lies in a `RolloutMemory`.

    Attributes:
        handle: Each row's slot and time step, (B, 2).
        prev: Stacked previous actions and rewards, (B, P); None without such inputs.
    """

    handle: _Array
    prev: _Array | None = None

    def to_state(self) -> dict[str, Any]:
        """Returns the `STATE_IN` that `from_state` reads."""
        state = {_HANDLE: self.handle, _PREV: self.prev}
        return {key: value for key, value in state.items() if value is not None}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "RolloutStep":
        """Reads what `to_state` wrote."""
        return cls(state[_HANDLE], state.get(_PREV))


def read_state(state: dict[str, Any] | None) -> ChunkContext | RolloutStep | None:
    """Returns the typed content of a `STATE_IN`, None if it holds neither.

    Args:
        state: From a batch, below no `CRITIC` key (see `unnested`).
    """
    if state and _HANDLE in state:
        return RolloutStep.from_state(state)
    if state and _CONTEXT in state:
        return ChunkContext.from_state(state)
    return None


def nested(state: dict[str, Any]) -> dict[str, Any]:
    """Puts a state where RLlib's `compute_values` looks for that of a separate critic."""
    return {CRITIC: state}


def unnested(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Undoes `nested`; a state that is not nested stays as it is."""
    return state if state is None else state.get(CRITIC, state)
