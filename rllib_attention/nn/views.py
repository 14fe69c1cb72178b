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
from rllib_attention.nn.no_position import NoPosition
from rllib_attention.nn.packing import PackedLayout
from rllib_attention.nn.sending import may_vary, send

# Of which a recording view holds all weights at a time.
_BLOCKS_AT_ONCE = 16


class View(Protocol):
    """One layer's tokens.

    What is worked out with NumPy is done when a view is made, and `prepare` does what needs the
    layer's options: `attend` and `keep` then work with nothing but tensors, and can be compiled.
    """

    @property
    def missing(self) -> Tensor:
        """Which share of its W steps lies before the episode, for each kept token, (..., 1)."""
        ...

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
        uniform: Whether the same operations serve every layout, so that they are compiled once.
    """

    def __init__(
        self,
        layout: PackedLayout,
        context: int,
        next_stride: int,
        window: int,
        *,
        uniform: bool = False,
    ):
        self.kept, query = layout.trimmed(context, next_stride)
        # Distances count in strides, hence positions too.
        self.steps = layout.position // layout.stride
        before = layout.before(window, query)
        self._blocked = layout.blocked(query, before, uniform=uniform)
        share = (window - 1 - before[:, None]) / window
        self.missing = layout.send(share.astype(np.float32))
        is_same = len(query) == len(layout) and layout.stride == next_stride
        self._keep = None if is_same and not uniform else layout.send(query)
        self._is_empty, self._uniform = not len(query), uniform
        # Where nearly all tokens are queries, one projection of all is fastest.
        self._projects_all = 4 * len(query) > 3 * len(layout) and not uniform
        self._angles: dict[Hashable, tuple[Tensor | None, Tensor | None]] = {}

    def attend(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Maps (N, D) to C of the kept tokens, (N', D)."""
        if self._is_empty:
            return x[:0]
        return self._attend(attention, *self._project(attention, x))

    def prepare(self, position: NoPosition, device: torch.device) -> None:
        """Works out what depends on the position scheme but not on its weights.

        Args:
            position: The layer's position scheme.
            device: Where the tokens are.
        """
        angles = self._position(position, device)
        self._blocked.mask.joined(position)
        if self._uniform:
            self._blocked.may_vary(position)
            may_vary(self._keep, 0)
            may_vary(self.missing, 0)
            may_vary(angles[0], 0)
            may_vary(angles[1], 0, 1)

    def keep(self, x: Tensor) -> Tensor:
        """(N, D) → (N', D)."""
        return _select(x, self._keep)

    def _project(self, attention: MultiHeadAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries in blocks, (blocks, block, H, E), keys and values, (N, H, E)."""
        angles, query_angles = self._position(attention.position, x.device)
        blocked = self._blocked
        if self._projects_all:
            query, key, value = attention.project(x, angles)
            return blocked.queries(query), key, value
        return attention.project_apart(blocked.queries(x), query_angles, x, angles)

    def _position(
        self, position: NoPosition, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns the angles of all tokens, and of the queries in blocks' order."""
        if position.key not in self._angles:
            with torch.inference_mode(False):  # so that passes with gradients can take them, too
                angles = _angles(position, self.steps, device, as_pairs=self._uniform)
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
        plain = key[..., : attention.head_size]  # without what a position appends
        new_key, new_value = _select(plain, self._recent), _select(value, self._recent)
        self._cache.fill(self._layer, *self._written, new_key, new_value)
        return x[:0] if self._is_empty else self._attend(attention, query, key, value)


class RowsView:
    """Rows of tokens as they are: best for short rows with few outputs.

    Args:
        valid: Which tokens are real, (B, S).
        steps: Time steps of the tokens, ascending, (S,).
        kept: Those of the tokens that later layers need, (Q,).
        window: Time steps that a query attends to.
        stride: Time steps between them.
        uniform: As for `PackedView`.
    """

    def __init__(
        self,
        valid: Tensor,
        steps: np.ndarray,
        kept: np.ndarray,
        window: int,
        stride: int,
        *,
        uniform: bool = False,
    ):
        place = np.searchsorted(steps, kept)
        self._positions = steps // stride
        key = send(steps, valid.device)
        self._keep = send(place, valid.device)
        # Where the kept ones are the last, a view serves.
        first = len(steps) - len(kept)
        self._first = first if not len(place) or place[0] == first else None
        self._mask = row_mask(valid, key.index_select(0, self._keep), key, window, stride)
        self._uniform, self._window = uniform, window
        self._angles: dict[Hashable, tuple[Tensor | None, Tensor | None]] = {}

    @property
    def missing(self) -> Tensor:
        """As for `View`; worked out when it is read, which blocks without a start never do."""
        seen = (self._mask.bias == 0).sum(-1).squeeze(1)  # (B, Q)
        return (1.0 - seen / self._window).unsqueeze(-1)

    def prepare(self, position: NoPosition, device: torch.device) -> None:
        """As for `PackedView`."""
        self._position(position, device)
        self._mask.joined(position)

    def _position(
        self, position: NoPosition, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns the angles of all tokens, and of the kept ones."""
        if position.key not in self._angles:
            angles = _angles(position, self._positions, device, as_pairs=self._uniform)
            kept = None if angles is None else angles.index_select(0, self._keep)
            self._angles[position.key] = angles, kept
        return self._angles[position.key]

    def attend(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Maps (B, S, D) to C of the kept tokens, (B, Q, D)."""
        angles, query_angles = self._position(attention.position, x.device)
        projected = attention.project_apart(self.keep(x), query_angles, x, angles)
        query, key, value = (y.transpose(1, 2) for y in projected)
        context = attention.attend(query, key, value, self._mask)
        return attention.merge(context.transpose(1, 2))

    def keep(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, Q, D)."""
        if self._first is not None:
            return x[:, self._first :]
        return x.index_select(1, self._keep)


def _angles(
    position: NoPosition, steps: np.ndarray, device: torch.device, *, as_pairs: bool
) -> Tensor | None:
    """Returns the rotations of some steps; as pairs of numbers if compilers are to read them."""
    angles = position.angles(steps, device)
    return torch.view_as_real(angles) if as_pairs and angles is not None else angles


def _select(x: Tensor, index: Tensor | None) -> Tensor:
    return x if index is None else x.index_select(0, index)
