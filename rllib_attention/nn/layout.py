"""Which query may attend to which key, for rows of tokens and for packed tokens.

A row is `[context | chunk]`: up to C steps of history, right-aligned, then T steps of which the
first `length` are real. Rows are cheap when they are short and full. When they are ragged, or
long against the window, `PackedLayout` drops every padding token and cuts what is left into
blocks that look one block back, so that cost is linear in tokens and in the window:

    rows (B=2, S=6)      packed (N=8)         blocks of 4, keys of two blocks
    . . a a a a          a a a a b b b b      q: a a a a | b b b b
    b b b b . .                               k: - - - - a a a a | a a a a b b b b

Layouts and masks are worked out on the host: they are small, and needed before any kernel starts.
Shapes: B batch, S tokens in a row, T outputs of a row, N packed tokens, W window, Q queries,
K keys.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class AttentionMask:
    """What one call of attention may see.

    Attributes:
        bias: What to add to scores, (..., 1, Q, K): 0 where a query may attend to a key, else -inf.
        distance: Time steps from key to query, (Q, K) or (..., 1, Q, K); in [0, W) wherever a query
            may attend, clamped to it elsewhere.
    """

    bias: Tensor
    distance: Tensor


def row_mask(valid: Tensor, num_queries: int, window: int) -> AttentionMask:
    """Sliding-window causal mask for the last `num_queries` tokens of each row.

    For W=3, S=5, num_queries=4, all valid (rows are queries, columns are keys):

        1 1 . . .
        1 1 1 . .
        . 1 1 1 .
        . . 1 1 1

    Args:
        valid: Which tokens are real, (B, S).
        num_queries: Queries Q at the end of each row.
        window: Time steps W that a query attends to, its own included.

    Returns:
        The mask, `bias` (B, 1, Q, S). A query always attends to itself, so that rows without
        a valid key stay finite.
    """
    size = valid.shape[1]
    key = torch.arange(size, device=valid.device)
    distance = key[size - num_queries :].unsqueeze(1) - key
    in_window = (distance >= 0) & (distance < window)
    allowed = in_window & (valid[:, None, None, :] | (distance == 0))
    bias = torch.zeros(allowed.shape, device=valid.device).masked_fill_(~allowed, float("-inf"))
    return AttentionMask(bias, distance.clamp(0, window - 1))


class PackedLayout:
    """The valid tokens of a batch of rows, one after another without padding.

    Args:
        first: Position of each row's first valid token, (B,).
        stop: Position after each row's last valid token, (B,).
        size: Tokens S in a row.
        num_outputs: The last T tokens of each row are outputs; the ones before are context.
        device: Where the rows are.
    """

    def __init__(
        self,
        first: np.ndarray,
        stop: np.ndarray,
        size: int,
        num_outputs: int,
        device: torch.device | str = "cpu",
    ):
        self.shape, self.num_outputs, self.device = (len(first), size), num_outputs, device
        self.first, self.stop = first, stop
        self.is_full = not first.any() and bool((stop == size).all())
        self.position = _ranges(first, stop)  # (N,) position in its row of each token
        self.row = np.repeat(np.arange(len(first)), stop - first)

    def pack(self, rows: Tensor) -> Tensor:
        """Takes the valid tokens out of their rows: (B, S, ...) → (N, ...)."""
        flat = rows.flatten(0, 1)
        if self.is_full:
            return flat
        return flat.index_select(0, self.send(self.row * self.shape[1] + self.position))

    def unpack(self, tokens: Tensor) -> Tensor:
        """Puts output tokens back into rows, zeros elsewhere: (N', D) → (B, T, D).

        Args:
            tokens: One token for each valid output position, in packed order.
        """
        rows, outputs = self.shape[0], self.num_outputs
        if len(tokens) == rows * outputs:
            return tokens.view(rows, outputs, -1)
        offset = np.arange(rows) * outputs - (self.shape[1] - outputs)
        first = np.maximum(self.first, self.shape[1] - outputs)
        target = _ranges(offset + first, offset + np.maximum(self.stop, first))
        out = tokens.new_zeros(rows * outputs, tokens.shape[-1])
        return out.index_copy(0, self.send(target), tokens).view(rows, outputs, -1)

    def trimmed(self, context: int) -> tuple["PackedLayout", Tensor | None]:
        """Drops the tokens that later layers do not need.

        Args:
            context: Steps of context to keep before the first output of each row.

        Returns:
            The layout of what is kept: outputs and their last `context` steps; and its indices into
            the tokens of this layout, None if all are kept.
        """
        size, outputs = self.shape[1], self.num_outputs
        first = np.minimum(np.maximum(self.first, size - outputs - context), self.stop)
        if np.array_equal(first, self.first):
            return self, None
        kept = PackedLayout(first, self.stop, size, outputs, self.device)
        length = self.stop - self.first
        end = length.cumsum()
        return kept, self.send(_ranges(end - (self.stop - first), end))

    def blocked(self, window: int) -> "BlockedMask":
        """Returns the mask for attention within each row.

        Args:
            window: Time steps W that a query attends to.
        """
        # No query sees further back than the longest row at hand.
        window = min(window, max(1, int((self.stop - self.first).max(initial=1))))
        # Short blocks attend to little beyond the window, but each one costs a fixed time: a
        # quarter of a long window was fastest, 32 queries of a middling one.
        queries = max(min(window - 1, 32), (window - 1) // 4)
        block = max(8, -(-queries // 8) * 8)
        return BlockedMask(self.row, window, block, self.device)

    def send(self, array: np.ndarray) -> Tensor:
        """Returns an array as a tensor beside the rows."""
        return torch.from_numpy(array).to(self.device)


class BlockedMask:
    """Cuts N packed tokens into blocks of queries, with the keys of each and of earlier blocks.

    Args:
        row: Row of each packed token, (N,); tokens attend within their row only.
        window: Time steps W that a query attends to.
        block: Queries in a block; W - 1 or a part of it serves best.
        device: Where the tokens are.
    """

    def __init__(
        self, row: np.ndarray, window: int, block: int, device: torch.device | str = "cpu"
    ):
        self.num_tokens, self.block = len(row), block
        self.num_blocks = -(-len(row) // block)
        self.lookback = -(-(window - 1) // block)  # earlier blocks that a query can reach
        self._after = self.num_blocks * block - len(row)
        # The fill of the last block is a row of its own: each query sees itself at least.
        rows = np.full((self.lookback + self.num_blocks) * block, -1)
        rows[: self.lookback * block] = -2
        rows[self.lookback * block :][: len(row)] = row
        keys = self._with_earlier(torch.from_numpy(rows).to(device).view(-1, block))
        same_row = keys[:, -block:, None] == keys[:, None]
        in_window, distance = (x.to(device) for x in _window_band(window, block, self.lookback))
        hidden = torch.tensor(float("-inf"), device=device)
        self.mask = AttentionMask(torch.where(same_row, in_window, hidden).unsqueeze(1), distance)

    def queries(self, tokens: Tensor) -> Tensor:
        """(N, H, E) → (blocks, H, block, E)."""
        padded = self._pad(tokens, before=0)
        return padded.view(self.num_blocks, self.block, *tokens.shape[1:]).transpose(1, 2)

    def keys(self, tokens: Tensor) -> Tensor:
        """(N, H, E) → (blocks, H, (lookback + 1) * block, E), earlier blocks first."""
        padded = self._pad(tokens, before=self.lookback)
        return self._with_earlier(padded.view(-1, self.block, *tokens.shape[1:])).transpose(1, 2)

    def merge(self, blocks: Tensor) -> Tensor:
        """(blocks, H, block, E) → (N, H, E)."""
        return blocks.transpose(1, 2).flatten(0, 1)[: self.num_tokens]

    def _with_earlier(self, blocks: Tensor) -> Tensor:
        """Puts the earlier blocks in front of each: (lookback + blocks, block, ...)."""
        shifted = [blocks[i : i + self.num_blocks] for i in range(self.lookback + 1)]
        return torch.cat(shifted, dim=1)

    def _pad(self, tokens: Tensor, *, before: int) -> Tensor:
        """Adds `before` blocks of zeros in front and fills the last block with zeros."""
        if not (before or self._after):
            return tokens
        return F.pad(tokens, (0, 0, 0, 0, before * self.block, self._after))


@functools.lru_cache(maxsize=64)
def _window_band(window: int, block: int, lookback: int) -> tuple[Tensor, Tensor]:
    """Returns the scores' bias (0 or -inf) and the distance of each pair of a block, (Q, K)."""
    # Kept for later passes: what is made under inference mode could not serve training.
    with torch.inference_mode(False):
        offset = torch.arange(block * (lookback + 1))
        distance = offset[-block:].unsqueeze(1) - offset
        bias = torch.zeros(distance.shape)
        bias[(distance < 0) | (distance >= window)] = float("-inf")
        return bias, distance.clamp(0, window - 1)


def _ranges(first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Returns `first[i] … stop[i] - 1` for each i, one after another."""
    length = stop - first
    start = length.cumsum() - length  # where each range begins in the result
    return np.arange(length.sum()) + np.repeat(first - start, length)
