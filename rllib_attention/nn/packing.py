"""Tokens without padding, and the way from rows to them and back.

A row is `[context | chunk]`: up to C steps of history, right-aligned, then T steps of which the
first `length` are real. A `PackedLayout` drops every padding token:

    rows (B=2, S=6)      packed (N=8)
    . . a a a a          a a a a b b b b
    b b b b . .

For a layer of stride s the tokens of a row are sorted by their position mod s: only those of the
same residue see each other, and are neighbours then. For s=2:

    positions 0 1 2 3 4 5 → 0 2 4 1 3 5

Layouts are worked out on the host: they are small, and needed before any kernel starts.
Shapes: B batch, S tokens in a row, T outputs of a row, N packed tokens, W window.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.checks import check_int
from rllib_attention.nn.masks import BlockedMask
from rllib_attention.nn.sending import send

_Value = TypeVar("_Value")
_PACK, _UNPACK = "pack", "unpack"


class PackedLayout:
    """The valid tokens of a batch of rows, one after another without padding.

    Args:
        first: Position of each row's first valid token, (B,).
        stop: Position after each row's last valid token, (B,).
        size: Tokens S in a row.
        num_outputs: The last T tokens of each row are outputs; the ones before are context.
        device: Where the rows are.
        stride: Stride of the layer that the tokens are sorted for.

    Raises:
        ValueError: If `first` and `stop` are no ranges within rows of this size, `num_outputs` is
            no number of their tokens, or `stride` is no positive integer.
    """

    def __init__(
        self,
        first: np.ndarray,
        stop: np.ndarray,
        size: int,
        num_outputs: int,
        device: torch.device | str = "cpu",
        stride: int = 1,
    ):
        _check(first, stop, size, num_outputs)
        check_int("stride", stride, 1)
        self.shape, self.num_outputs = (len(first), size), num_outputs
        self.device = torch.device(device)
        self.first, self.stop, self.stride = first, stop, stride
        self.is_full = not first.any() and bool((stop == size).all())
        self.position = ranges(first, stop)  # (N,) position in its row of each token
        self.row = np.repeat(np.arange(len(first)), stop - first)
        self._known: dict[Hashable, Any] = {}
        self._order: np.ndarray | None = None  # of the sorted tokens among unsorted ones
        if stride > 1:
            residue = self.row * stride + self.position % stride
            self._order = residue.argsort(kind="stable")
            self.position, self.row = self.position[self._order], self.row[self._order]

    def __len__(self) -> int:
        return len(self.position)

    def pack(self, rows: Tensor) -> Tensor:
        """Takes the valid tokens out of their rows: (B, S, ...) → (N, ...)."""
        flat = rows.flatten(0, 1)
        if self.is_full and self._order is None:
            return flat
        where = self.remember(_PACK, lambda: self.send(self.row * self.shape[1] + self.position))
        return flat.index_select(0, where)

    def unpack(self, tokens: Tensor) -> Tensor:
        """Puts output tokens back into rows, zeros elsewhere: (N', D) → (B, T, D).

        Args:
            tokens: One token for each valid output position, in packed order, unsorted.
        """
        rows, outputs = self.shape[0], self.num_outputs
        if len(tokens) == rows * outputs:
            return tokens.view(rows, outputs, -1)
        target = self.remember(_UNPACK, lambda: self.send(self._target()))
        out = tokens.new_zeros(rows * outputs, tokens.shape[-1])
        return out.index_copy(0, target, tokens).view(rows, outputs, -1)

    def _target(self) -> np.ndarray:
        """Returns where each output goes among those of all rows, (N',)."""
        outputs, before = self.num_outputs, self.shape[1] - self.num_outputs
        offset = np.arange(self.shape[0]) * outputs - before
        first = np.maximum(self.first, before)
        return ranges(offset + first, offset + np.maximum(self.stop, first))

    def trimmed(self, context: int, stride: int = 1) -> tuple["PackedLayout", np.ndarray]:
        """Drops the tokens that later layers do not need, and sorts the others for the next one.

        Args:
            context: Steps of context to keep before the first output of each row.
            stride: Stride of the next layer; 1 behind the last one.

        Returns:
            The layout of what is kept: outputs and their last `context` steps; and where they are
            among the tokens of this layout.
        """
        size, outputs = self.shape[1], self.num_outputs
        first = np.minimum(np.maximum(self.first, size - outputs - context), self.stop)
        kept = PackedLayout(first, self.stop, size, outputs, self.device, stride)
        end = (self.stop - self.first).cumsum()
        place = ranges(end - (self.stop - first), end)
        if kept._order is not None:
            place = place[kept._order]
        if self._order is not None:
            sorted_place = np.empty_like(self._order)
            sorted_place[self._order] = np.arange(len(self))
            place = sorted_place[place]
        return kept, place

    def before(self, window: int, query: np.ndarray) -> np.ndarray:
        """Returns how many tokens before its own each query attends to, (Q,).

        Args:
            window: Time steps W that a query attends to, at this layout's stride.
            query: Which tokens are queries, (Q,).
        """
        earlier = (self.position[query] - self.first[self.row[query]]) // self.stride
        return np.minimum(earlier, window - 1)

    def blocked(
        self, query: np.ndarray, before: np.ndarray, *, uniform: bool = False
    ) -> BlockedMask:
        """Returns the mask for attention within each row.

        Args:
            query: Which tokens are queries, (Q,).
            before: From `before`.
            uniform: As for `BlockedMask`.
        """
        # Short blocks attend to little beyond the window, but each one costs a fixed time: a
        # quarter of a long window was fastest, 32 queries of a middling one. No query sees
        # further back than the longest row at hand.
        reach = int(before.max(initial=0))
        block = max(8, -(-max(min(reach, 32), reach // 4) // 8) * 8)
        return BlockedMask(query, before, len(self), block, self.device, uniform=uniform)

    def remember(self, key: Hashable, work_out: Callable[[], _Value]) -> _Value:
        """Returns what follows from the layout alone, worked out when it is first asked for.

        Several encoders run over the same layout: actor and critics, and their targets.

        Args:
            key: What it depends on besides the layout.
            work_out: Works it out.
        """
        if key not in self._known:
            with torch.inference_mode(False):  # so that passes with gradients can take it, too
                self._known[key] = work_out()
        return self._known[key]

    def send(self, array: np.ndarray) -> Tensor:
        """Returns an array as a tensor beside the rows."""
        return send(array, self.device)


def _check(first: np.ndarray, stop: np.ndarray, size: int, num_outputs: int) -> None:
    check_int("size", size, 0)
    check_int("num_outputs", num_outputs, 0)
    if num_outputs > size:
        raise ValueError(f"`num_outputs` must be at most `size`, {size}, got {num_outputs}.")
    if first.shape != stop.shape or first.ndim != 1:
        raise ValueError(
            "`first` and `stop` must have one entry for each row, got shapes "
            f"{first.shape} and {stop.shape}."
        )
    if ((first < 0) | (first > stop) | (stop > size)).any():
        raise ValueError(
            f"`first` and `stop` must be ranges within rows of {size} tokens, got "
            f"{first.tolist()} and {stop.tolist()}."
        )


def ranges(first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Returns `first[i] … stop[i] - 1` for each i, one after another."""
    length = stop - first
    start = length.cumsum() - length  # where each range begins in the result
    return np.arange(length.sum()) + np.repeat(first - start, length)
