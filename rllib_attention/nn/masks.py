"""Which query may attend to which key, for rows of tokens and for packed tokens.

In a layer of stride s a query attends to the steps t, t-s, …, t-(W-1)s of its own row. Masks are
worked out from a few numbers on the host, needed before any kernel starts. Shapes: B batch,
S tokens in a row, W window, Q queries, K keys.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.no_position import NoPosition
from rllib_attention.nn.sending import may_vary, send


@dataclass(frozen=True)
class AttentionMask:
    """What one call of attention may see.

    Attributes:
        bias: What to add to scores, (..., 1, Q, K): 0 where a query may attend to a key, else -inf.
        distance: Strides from key to query, (Q, K) or (..., 1, Q, K); in [0, W) wherever a query
            may attend, anything elsewhere.
    """

    bias: Tensor
    distance: Tensor
    _joined: dict[Hashable, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def joined(self, position: NoPosition) -> Tensor:
        """Returns the mask with the position's fixed bias, worked out once for all its encoders.

        Args:
            position: A position scheme.

        Returns:
            (..., 1, Q, K) or (..., H, Q, K).
        """
        if position.key not in self._joined:
            with torch.inference_mode(False):  # so that passes with gradients can take it, too
                where = position.fixed_bias(self.distance)
                self._joined[position.key] = self.bias if where is None else self.bias + where
        return self._joined[position.key]


def row_mask(valid: Tensor, query: Tensor, key: Tensor, window: int, stride: int) -> AttentionMask:
    """Sliding-window causal mask for rows of tokens.

    For W=3, keys at steps 0 … 4, queries at steps 1 … 4, all valid (rows are queries, columns are
    keys), with stride 1 and stride 2:

        1 1 . . .     . 1 . . .
        1 1 1 . .     1 . 1 . .
        . 1 1 1 .     . 1 . 1 .
        . . 1 1 1     1 . 1 . 1

    Args:
        valid: Which tokens are real, (B, K).
        query: Time steps of the queries, (Q,), each of which is that of a key.
        key: Time steps of the keys, (K,).
        window: Time steps W that a query attends to, its own included.
        stride: Time steps between them.

    Returns:
        The mask, `bias` (B, 1, Q, K). A query always attends to itself, so that rows without
        a valid key stay finite.
    """
    steps = query.unsqueeze(1) - key
    in_window = (steps >= 0) & (steps < window * stride) & (steps % stride == 0)
    allowed = in_window & (valid[:, None, None, :] | (steps == 0))
    return AttentionMask(_bias(~allowed), steps.div(stride, rounding_mode="floor"))


class BlockedMask:
    """Cuts the queries among N packed tokens into blocks, each with the keys that it can reach.

    Cost is linear in queries and in the window. For W=3, blocks of 4 queries and two rows, a and
    b, whose first two tokens are context (in brackets, no queries):

        tokens   (a a) a a a a a (b b) b b b
        block 0  queries a a a a    keys (a a) a a a a
        block 1  queries a . . .    keys a a a (b b) b
        block 2  queries b b b .    keys (b b) b b b -

    A block ends where a further query would need more keys than a block of one row does.

    Args:
        query: Places of the queries among the tokens, (Q,).
        before: How many of the tokens before it each query may attend to, (Q,); besides itself.
        num_tokens: Tokens N.
        block: Queries in a block at most; W - 1 or a part of it serves best.
        device: Where the tokens are.
        uniform: Whether the same operations serve any queries, also where a tensor could be taken
            as it is: for graphs that are compiled once.
    """

    def __init__(
        self,
        query: np.ndarray,
        before: np.ndarray,
        num_tokens: int,
        block: int,
        device: torch.device | str = "cpu",
        *,
        uniform: bool = False,
    ):
        order = None
        if (np.diff(query) < 0).any():
            order = query.argsort()
            query, before = query[order], before[order]
        first = query - before
        begin, size = _cut(query, first, block, block + int(before.max(initial=0)))
        if uniform and len(begin) == 1:  # compilers take a size of 1 for a case of its own
            begin, size = np.append(begin, begin), np.append(size, 0)
        offset, end = np.arange(block), np.maximum(size - 1, 0)
        # The fill of a block repeats its last query, so that nothing is NaN.
        chosen = begin[:, None] + np.minimum(offset, end[:, None])
        last = query[begin + end]
        # Kernels are a third faster on multiples of 8.
        num_keys = -(-(int((last - first[begin]).max(initial=0)) + 1) // 8) * 8
        keys = first[begin, None] + np.arange(num_keys)

        def to_device(array: np.ndarray) -> Tensor:
            return send(array, device)

        self._is_whole = len(query) == num_tokens == chosen.size and not uniform
        # Two dimensions, of which compilers need not work out one from the other.
        self._queries = to_device(query[chosen])
        self._keys = to_device(np.minimum(keys, num_tokens - 1))
        # Where each query went, in the order that was given.
        place = np.flatnonzero(offset < size[:, None])
        if order is not None:
            place[order] = place.copy()
        is_in_order = order is None and len(place) == chosen.size
        self._place = None if is_in_order and not uniform else to_device(place)
        distance = to_device(query[chosen]).unsqueeze(2) - to_device(keys).unsqueeze(1)
        hidden = (distance < 0) | (distance > to_device(before[chosen]).unsqueeze(2))
        self.mask = AttentionMask(_bias(hidden).unsqueeze(1), distance.unsqueeze(1))

    @property
    def num_blocks(self) -> int:
        """The number of blocks."""
        return self.mask.bias.shape[0]

    @property
    def block(self) -> int:
        """Queries in a block, its fill included."""
        return self.mask.bias.shape[-2]

    def may_vary(self, position: NoPosition) -> None:
        """Tells compilers which sizes differ between layouts.

        Args:
            position: The position scheme that scores will have.
        """
        may_vary(self._place, 0)
        for index in (self._queries, self._keys):
            may_vary(index, 0, 1)
        for mask in (self.mask.joined(position), self.mask.distance):
            may_vary(mask, 0, -2, -1)

    def queries(self, tokens: Tensor) -> Tensor:
        """Takes the queries in the order of the blocks: (N, ...) → (blocks, block, ...)."""
        if self._is_whole:
            return tokens.view(self.num_blocks, -1, *tokens.shape[1:])
        return _take(tokens, self._queries)

    def keys(self, tokens: Tensor) -> Tensor:
        """Takes each block's keys or values: (N, H, E) → (blocks, H, K, E)."""
        return _take(tokens, self._keys).transpose(1, 2)

    def split(self, queries: Tensor) -> Tensor:
        """Puts queries' heads first: (blocks, block, H, E) → (blocks, H, block, E)."""
        return queries.transpose(1, 2)

    def merge(self, blocks: Tensor) -> Tensor:
        """Returns contexts in the order of `query`: (blocks, H, block, E) → (Q, H, E)."""
        flat = blocks.transpose(1, 2).flatten(0, 1)
        return flat if self._place is None else flat.index_select(0, self._place)


def _take(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.index_select(0, index.flatten()).unflatten(0, index.shape)


def _cut(
    query: np.ndarray, first: np.ndarray, max_queries: int, max_keys: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts queries into blocks, each as long as both limits allow.

    Args:
        query: Places of the queries, (Q,).
        first: Place of each query's first key, (Q,).
        max_queries: Most queries in a block.
        max_keys: Most keys in a block; a query with all its keys fits.

    Returns:
        Where each block begins among the queries, and how many it has.
    """
    # Where the next block would begin if one began here.
    after = np.minimum(
        np.arange(len(query)) + max_queries, np.searchsorted(query, first + max_keys)
    ).tolist()
    begin = [0]
    while begin[-1] < len(query):
        begin.append(after[begin[-1]])
    bounds = np.array(begin)
    return bounds[:-1], np.diff(bounds)


def _bias(hidden: Tensor) -> Tensor:
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))
