"""How a block's tokens see each other: packed, in rows, or packed on their way into a KV cache.

A view says which tokens attend to which and which of them later layers still need; the block is
the same for all. Shapes: B batch, S tokens in a row, N packed tokens, N' kept tokens, H heads,
E head size, D embed dim, Q queries, K keys, W window.
"""

from collections.abc import Hashable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.kv_cache import KVCache
from rllib_attention.nn.masks import AttentionMask, row_mask
from rllib_attention.nn.packing import PackedLayout
from rllib_attention.nn.positions import NoPosition

# Of which a recording view holds all weights at a time.
_BLOCKS_AT_ONCE = 16


class View(Protocol):
    """One layer's tokens."""

    def attend(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Maps normed tokens, (..., D), to C of the kept ones, (..., D)."""
        ...

    def keep(self, x: Tensor) -> Tensor:
        """Returns the tokens that later layers need."""
        ...


class PackedView:
    """Packed tokens, attending in blocks: no work on padding, cost linear in tokens and window.

    Args:
        layout: Where the tokens come from, sorted for the layer's stride.
        context: Steps of context before the first output that later layers need.
        next_stride: Stride of the next layer; 1 behind the last one.
        window: Time steps that a query attends to.
    """

    def __init__(
        self,
        layout: PackedLayout,
        context: int,
        next_stride: int,
        window: int,
    ):
        self.kept, query = layout.trimmed(context, next_stride)
        # Distances count in strides, hence positions too.
        self.steps = layout.position // layout.stride
        self._blocked = layout.blocked(window, query)
        is_same = len(query) == len(layout) and layout.stride == next_stride
        self._keep = None if is_same else layout.send(query)
        self._angles: dict[Hashable, tuple[Tensor | None, Tensor | None]] = {}

    def attend(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Maps (N, D) to C of the kept tokens, (N', D)."""
        if not len(self.kept):
            return x[:0]
        return self._attend(attention, *self._project(attention, x))

    def keep(self, x: Tensor) -> Tensor:
        """(N, D) → (N', D)."""
        return _select(x, self._keep)

    def _project(self, attention: MultiHeadAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries in blocks' order, (blocks * block, H, E), keys and values, (N, H, E)."""
        angles, query_angles = self._position(attention.position, x.device)
        blocked = self._blocked
        if self._projects_all:
            query, key, value = attention.project(x, angles)
            return blocked.queries(query), key, value
        return attention.project_apart(blocked.queries(x), query_angles, x, angles)

    @property
    def _projects_all(self) -> bool:
        # Where nearly all tokens are queries, one projection of all is fastest.
        return 4 * len(self.kept) > 3 * len(self.steps)

    def _position(
        self, position: NoPosition, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns the angles of all tokens, and of the queries in blocks' order."""
        if position.key not in self._angles:
            with torch.inference_mode(False):  # so that passes with gradients can take them, too
                angles = position.angles(self.steps, device)
                query_angles = None if angles is None else self._blocked.queries(angles)
            self._angles[position.key] = angles, query_angles
        return self._angles[position.key]

    def _attend(
        self, attention: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        blocked = self._blocked
        query, key, value = blocked.split(query), blocked.keys(key), blocked.keys(value)
        context = attention.attend(query, key, value, blocked.mask)
        return attention.merge(blocked.merge(context))


class RecordedView(PackedView):
    """Packed tokens of one row, all of which are kept; the weights α are written down.

    Outputs are those of a `PackedView`. Memory beside them is that of the weights themselves.

    Args:
        layout: Where the tokens come from, sorted for the layer's stride; without context.
        next_stride: Stride of the next layer; 1 behind the last one.
        window: Time steps W that a query attends to.
        weights: The weights are appended to it, (H, N, W) on the host: entry k of a query is that
            of the key which lies k strides before it; 0 where there is no such key.
    """

    def __init__(self, layout: PackedLayout, next_stride: int, window: int, weights: list[Tensor]):
        super().__init__(layout, 0, next_stride, window)
        self._window, self._weights = window, weights

    def _attend(
        self, attention: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        blocked = self._blocked
        queries, keys = blocked.split(query), blocked.keys(key)
        lags = torch.arange(self._window, device=query.device)
        by_lag = queries.new_zeros(*queries.shape[:3], self._window)
        for first in range(0, blocked.num_blocks, _BLOCKS_AT_ONCE):
            part = slice(first, first + _BLOCKS_AT_ONCE)
            mask = AttentionMask(blocked.mask.bias[part], blocked.mask.distance[part])
            weights = attention.weights(queries[part], keys[part], mask)
            place = mask.distance[..., :1] - lags  # of each lag's key among those of the block
            taken = weights.gather(-1, place.clamp(min=0).expand(*weights.shape[:3], -1))
            by_lag[part] = taken.masked_fill_(place < 0, 0.0)
        merged = blocked.merge(by_lag)
        by_query = torch.empty_like(merged)
        by_query[self.kept.position] = merged
        self._weights.append(by_query.transpose(0, 1).cpu())
        context = attention.attend(queries, keys, blocked.keys(value), blocked.mask)
        return attention.merge(blocked.merge(context))


class PrefillView(PackedView):
    """Packed context tokens whose keys and values go into a KV cache on the way.

    Args:
        layout: Where the tokens come from: context only, without outputs.
        context: Steps of context that later layers need.
        next_stride: Stride of the next layer; 1 behind the last one.
        window: Time steps that a query attends to.
        cache: To be written.
        layer: Which of the cache's layers this is.
        slots: Slot of each row, (B,).
        steps: Time step after the last one of each row, (B,).
    """

    def __init__(
        self,
        layout: PackedLayout,
        context: int,
        next_stride: int,
        window: int,
        *,
        cache: KVCache,
        layer: int,
        slots: np.ndarray,
        steps: np.ndarray,
    ):
        super().__init__(layout, context, next_stride, window)
        # Absolute steps, as in `Stepper.step`: cached keys are rotated to them.
        absolute = layout.position + (steps - layout.shape[1])[layout.row]
        self.steps = absolute // layout.stride
        self._cache, self._layer = cache, layer
        # Rings hold the last steps only.
        recent = np.flatnonzero(layout.position >= layout.shape[1] - window * layout.stride)
        self._written = slots[layout.row[recent]], absolute[recent]
        self._recent = None if len(recent) == len(layout) else layout.send(recent)

    def attend(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Maps (N, D) to C of the kept tokens, (N', D)."""
        query, key, value = self._project(attention, x)
        new_key, new_value = _select(key, self._recent), _select(value, self._recent)
        self._cache.fill(self._layer, *self._written, new_key, new_value)
        return self._attend(attention, query, key, value) if len(self.kept) else x[:0]


class RowsView:
    """Rows of tokens as they are: best for short rows with few outputs.

    Args:
        valid: Which tokens are real, (B, S).
        steps: Time steps of the tokens, ascending, (S,).
        kept: Those of the tokens that later layers need, (Q,).
        window: Time steps that a query attends to.
        stride: Time steps between them.
    """

    def __init__(
        self,
        valid: Tensor,
        steps: np.ndarray,
        kept: np.ndarray,
        window: int,
        stride: int,
    ):
        self._place = np.searchsorted(steps, kept)
        self._positions = steps // stride
        key = torch.from_numpy(steps).to(valid.device)
        self._keep = torch.from_numpy(self._place).to(valid.device)
        self._mask = row_mask(valid, key[self._keep], key, window, stride)

    def attend(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Maps (B, S, D) to C of the kept tokens, (B, Q, D)."""
        angles = attention.position.angles(self._positions, x.device)
        query_angles = None if angles is None else angles[self._keep]
        projected = attention.project_apart(self.keep(x), query_angles, x, angles)
        query, key, value = (y.transpose(1, 2) for y in projected)
        context = attention.attend(query, key, value, self._mask)
        return attention.merge(context.transpose(1, 2))

    def keep(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, Q, D)."""
        first = x.shape[1] - len(self._place)
        if not len(self._place) or self._place[0] == first:
            return x[:, first:]
        return x.index_select(1, self._keep)


def _select(x: Tensor, index: Tensor | None) -> Tensor:
    return x if index is None else x.index_select(0, index)
