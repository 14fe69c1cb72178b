"""Which query may attend to which key, for rows of tokens and for packed tokens.

A row is `[context | chunk]`: up to C steps of history, right-aligned, then T steps of which the
first `length` are real. Rows are cheap when they are short and full. When they are ragged, or
long against the window, `PackedLayout` drops every padding token and cuts what is left into
blocks that look one block back, so that cost is linear in tokens and in the window:

    rows (B=2, S=6)      packed (N=8)         blocks of 4, keys of two blocks
    . . a a a a          a a a a b b b b      q: a a a a | b b b b
    b b b b . .                               k: - - - - a a a a | a a a a b b b b

Shapes: B batch, S tokens in a row, T outputs of a row, N packed tokens, W window, Q queries,
K keys.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionMask:
    """What one call of attention may see.

    Attributes:
        allowed: Whether a query may attend to a key, (..., 1, Q, K).
        distance: Time steps from key to query, (Q, K) or (..., 1, Q, K); in [0, W) wherever
            `allowed`, clamped to it elsewhere.
    """

    allowed: Tensor
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
        The mask, `allowed` (B, 1, Q, S). A query always attends to itself, so that rows without
        a valid key stay finite.
    """
    size = valid.shape[1]
    key = torch.arange(size, device=valid.device)
    distance = key[size - num_queries :].unsqueeze(1) - key
    in_window = (distance >= 0) & (distance < window)
    allowed = in_window & (valid[:, None, None, :] | (distance == 0))
    return AttentionMask(allowed, distance.clamp(0, window - 1))


class PackedLayout:
    """The valid tokens of a batch of rows, one after another without padding.

    Args:
        valid: Which tokens are real, (B, S); within a row they must be contiguous.
        num_outputs: The last T tokens of each row are outputs; the ones before are context.
    """

    def __init__(self, valid: Tensor, num_outputs: int):
        self.shape = valid.shape
        self.num_outputs = num_outputs
        self.index = valid.flatten().nonzero().squeeze(1)  # (N,) into the flattened rows
        self.row = torch.div(self.index, valid.shape[1], rounding_mode="floor")
        self.position = self.index - self.row * valid.shape[1]

    def pack(self, rows: Tensor) -> Tensor:
        """Takes the valid tokens out of their rows: (B, S, ...) → (N, ...)."""
        flat = rows.flatten(0, 1)
        return flat if len(self.index) == len(flat) else flat.index_select(0, self.index)

    def unpack(self, tokens: Tensor) -> Tensor:
        """Puts output tokens back into rows, zeros elsewhere: (N', D) → (B, T, D).

        Args:
            tokens: One token for each valid output position, in packed order.
        """
        rows, outputs = self.shape[0], self.num_outputs
        if len(tokens) == rows * outputs:
            return tokens.view(rows, outputs, -1)
        keep = self.position >= self.shape[1] - outputs
        target = self.row[keep] * outputs + self.position[keep] - (self.shape[1] - outputs)
        out = tokens.new_zeros(rows * outputs, tokens.shape[-1])
        return out.index_copy(0, target, tokens).view(rows, outputs, -1)

    def keep_from(self, context: int, position: Tensor) -> Tensor | None:
        """Returns the tokens that later layers need: outputs and their last `context` steps.

        Args:
            context: Steps of context to keep before the first output of each row.
            position: Position in its row of each token at hand, (N,).

        Returns:
            Indices into the tokens at hand, or None if all are needed.
        """
        first = self.shape[1] - self.num_outputs - context
        needed = position >= first
        return None if bool(needed.all()) else needed.nonzero().squeeze(1)


class BlockedMask:
    """Cuts N packed tokens into blocks of queries, with the keys of each and of earlier blocks.

    Args:
        row: Row of each packed token, (N,); tokens attend within their row only.
        window: Time steps W that a query attends to.
        block: Queries in a block; W - 1 or a part of it serves best.
    """

    def __init__(self, row: Tensor, window: int, block: int):
        self.num_tokens, self.block = len(row), block
        self.num_blocks = -(-len(row) // block)
        self.lookback = -(-(window - 1) // block)  # earlier blocks that a query can reach
        offset = torch.arange(block * (self.lookback + 1), device=row.device)
        distance = offset[-block:].unsqueeze(1) - offset
        in_window = (distance >= 0) & (distance < window)
        queries = self._pad(row, before=0, fill=-1).view(self.num_blocks, block)
        keys = self._pad(row, before=self.lookback, fill=-2).unfold(0, len(offset), block)
        same_row = queries.unsqueeze(-1) == keys.unsqueeze(-2)
        allowed = in_window & (same_row | (distance == 0))
        self.mask = AttentionMask(allowed.unsqueeze(1), distance.clamp(0, window - 1))

    def queries(self, tokens: Tensor) -> Tensor:
        """(N, H, E) → (blocks, H, block, E)."""
        padded = self._pad(tokens, before=0)
        return padded.view(self.num_blocks, self.block, *tokens.shape[1:]).transpose(1, 2)

    def keys(self, tokens: Tensor) -> Tensor:
        """(N, H, E) → (blocks, H, (lookback + 1) * block, E), earlier blocks first."""
        padded = self._pad(tokens, before=self.lookback)
        blocks = padded.view(-1, self.block, *tokens.shape[1:])
        shifted = [blocks[i : i + self.num_blocks] for i in range(self.lookback + 1)]
        return torch.cat(shifted, dim=1).transpose(1, 2)

    def merge(self, blocks: Tensor) -> Tensor:
        """(blocks, H, block, E) → (N, H, E)."""
        return blocks.transpose(1, 2).flatten(0, 1)[: self.num_tokens]

    def _pad(self, tokens: Tensor, *, before: int, fill: float = 0.0) -> Tensor:
        """Adds `before` blocks in front and fills the last block."""
        after = self.num_blocks * self.block - self.num_tokens
        if not (before or after):
            return tokens
        front = tokens.new_full((before * self.block, *tokens.shape[1:]), fill)
        back = tokens.new_full((after, *tokens.shape[1:]), fill)
        return torch.cat((front, tokens, back))
