"""The stack of blocks, over rows, over packed tokens, and step by step with a KV cache.

The three paths compute the same function (`tests/nn/test_transformer.py` holds them against each
other). A stack of L layers with window W sees L(W-1) steps back; every path drops, layer by
layer, the context that no later layer can reach. Shapes: B batch, S tokens in a row, T outputs,
N packed tokens, H heads, E head size, D embed dim, L layers, W window.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.block import Block
from rllib_attention.nn.feed_forward import FeedForward
from rllib_attention.nn.gates import make_gate
from rllib_attention.nn.kv_cache import KVCache
from rllib_attention.nn.layout import AttentionMask, BlockedMask, PackedLayout, row_mask
from rllib_attention.nn.positions import make_position


class Transformer(nn.Module):
    """Causal sliding-window transformer.

    Args:
        dim: Embed dim D.
        num_layers: Blocks L.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Time steps W that each layer attends to, the current one included.
        ffn_dim: Hidden width of the feed-forward; 0 for none.
        position: "recency", "rotary", "relative" or "none".
        gate: "residual" or "gru".
        gate_bias: Initial bias of the GRU gates.
        dropout: Probability of dropping a number that a sub-layer adds, in training passes.

    Raises:
        ValueError: If `position` or `gate` is unknown, or `head_size` is odd with rotary
            positions.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        head_size: int,
        window: int,
        ffn_dim: int = 0,
        position: str = "rotary",
        gate: str = "residual",
        gate_bias: float = 2.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.num_layers, self.num_heads, self.window = num_layers, num_heads, window
        self.dropout = dropout

        def build_block() -> Block:
            scheme = make_position(
                position, dim=dim, num_heads=num_heads, head_size=head_size, window=window
            )
            return Block(
                MultiHeadAttention(dim, num_heads, head_size, scheme),
                make_gate(gate, dim=dim, bias=gate_bias),
                FeedForward(dim, ffn_dim) if ffn_dim else None,
                make_gate(gate, dim=dim, bias=gate_bias) if ffn_dim else None,
                dim,
            )

        blocks = nn.ModuleList(build_block() for _ in range(num_layers))
        # To torch, the items of a list are modules of any kind.
        self.blocks = cast("Sequence[Block]", blocks)
        self.norm = nn.LayerNorm(dim)
        # Outputs of norm 1 at first, not of √D: RLlib's heads start with weights of usual size, and
        # an initial policy that is far from uniform explores badly.
        nn.init.constant_(self.norm.weight, dim**-0.5)

    def forward(self, tokens: Tensor, layout: PackedLayout, *, dropout: bool = False) -> Tensor:
        """Runs packed tokens: no work on padding, cost linear in tokens and window.

        Args:
            tokens: The valid tokens of all rows, (N, D).
            layout: Where they come from.
            dropout: Whether this is a training pass.

        Returns:
            The output tokens in packed order, to be given to `layout.unpack`.
        """
        probability = self.dropout if dropout else 0.0
        for depth, block in enumerate(self.blocks):
            kept, keep = layout.trimmed(self._reach(depth))
            angles = self._angles(layout.position, tokens.device)
            blocked = layout.blocked(self.window)

            def attend(
                x: Tensor,
                attention: MultiHeadAttention = block.attention,
                angles: Tensor | None = angles,
                blocked: BlockedMask = blocked,
                keep: Tensor | None = keep,
            ) -> Tensor:
                query, key, value = attention.project(x, angles)
                query, key, value = blocked.queries(query), blocked.keys(key), blocked.keys(value)
                context = attention.attend(query, key, value, blocked.mask)
                return attention.merge(_select(blocked.merge(context), keep))

            tokens = block(tokens, attend, lambda x, keep=keep: _select(x, keep), probability)
            layout = kept
        return self.norm(tokens)

    def forward_rows(
        self,
        rows: Tensor,
        valid: Tensor,
        num_outputs: int,
        *,
        dropout: bool = False,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Runs rows of tokens as they are: best for short rows with few outputs.

        Args:
            rows: (B, S, D), time runs along each row.
            valid: Which tokens are real, (B, S).
            num_outputs: Outputs T at the end of each row.
            dropout: Whether this is a training pass.
            weights: If a list, each layer's weights α, (B, H, Q, K), are appended to it; queries
                and keys are the last Q and K tokens of the rows.

        Returns:
            (B, T, D).
        """
        probability = self.dropout if dropout else 0.0
        for depth, block in enumerate(self.blocks):
            size = rows.shape[1]
            num_queries = min(size, num_outputs + self._reach(depth))
            mask = row_mask(valid[:, -size:], num_queries, self.window)
            angles = self._angles(np.arange(size), rows.device)

            def attend(
                x: Tensor,
                attention: MultiHeadAttention = block.attention,
                angles: Tensor | None = angles,
                num_queries: int = num_queries,
                mask: AttentionMask = mask,
            ) -> Tensor:
                query, key, value = (y.transpose(1, 2) for y in attention.project(x, angles))
                query = query[:, :, -num_queries:]
                if weights is not None:
                    weights.append(attention.weights(query, key, mask))
                context = attention.attend(query, key, value, mask)
                return attention.merge(context.transpose(1, 2))

            rows = block(rows, attend, lambda x, q=num_queries: x[:, -q:], probability)
        return self.norm(rows)

    def prefill(
        self,
        rows: Tensor,
        cache: KVCache,
        slots: np.ndarray,
        steps: np.ndarray,
        starts: np.ndarray,
    ) -> None:
        """Fills the cache with the context before the next step of some slots.

        Args:
            rows: The last S steps of each slot, right-aligned, (B, S, D); S at most L(W-1).
            cache: To be written.
            slots: (B,).
            steps: The next step of each row, (B,); row position S-1 is the step before it.
            starts: First real step of each row's episode, (B,); earlier positions are padding.
        """
        for layer, block in enumerate(self.blocks):
            size = rows.shape[1]
            if not size:
                return
            step = steps[:, None] + np.arange(-size, 0)
            valid = step >= starts[:, None]
            num_queries = min(size, self._reach(layer))
            mask = row_mask(torch.from_numpy(valid).to(rows.device), num_queries, self.window)
            recent = slice(max(0, size - cache.window), size)
            written = np.where(valid, step, -1)[:, recent]
            # Absolute steps, as in `step`: cached keys are rotated to them.
            angles = self._angles(step, rows.device)

            def attend(
                x: Tensor,
                attention: MultiHeadAttention = block.attention,
                angles: Tensor | None = angles,
                layer: int = layer,
                num_queries: int = num_queries,
                mask: AttentionMask = mask,
                recent: slice = recent,
                written: np.ndarray = written,
            ) -> Tensor:
                query, key, value = attention.project(x, angles)
                cache.fill(layer, slots, written, key[:, recent], value[:, recent])
                query = query[:, query.shape[1] - num_queries :]
                query, key, value = (y.transpose(1, 2) for y in (query, key, value))
                context = attention.attend(query, key, value, mask)
                return attention.merge(context.transpose(1, 2))

            rows = block(rows, attend, lambda x, q=num_queries: x[:, x.shape[1] - q :])

    def _reach(self, depth: int) -> int:
        """Steps of context that the layers after `depth` still need."""
        return (self.num_layers - 1 - depth) * (self.window - 1)

    def _angles(self, steps: np.ndarray, device: torch.device) -> Tensor | None:
        """Positions of the tokens; the scheme is the same in every block."""
        angles = self.blocks[0].attention.position.angles(steps)
        return None if angles is None else torch.from_numpy(angles).to(device)


def _select(x: Tensor, keep: Tensor | None) -> Tensor:
    return x if keep is None else x.index_select(0, keep)
