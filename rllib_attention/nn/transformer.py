"""The stack of blocks, over rows, over packed tokens, and step by step with a KV cache.

The three paths compute the same function (`tests/nn/test_transformer.py` holds them against each
other). A stack of L layers with window W sees L(W-1) steps back; every path drops, layer by
layer, the context that no later layer can reach. Shapes: B batch, S tokens in a row, T outputs,
N packed tokens, H heads, E head size, D embed dim, L layers, W window.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import Tensor, nn

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.block import Block
from rllib_attention.nn.checks import check_int
from rllib_attention.nn.feed_forward import FeedForward
from rllib_attention.nn.gates import make_gate
from rllib_attention.nn.kv_cache import KVCache
from rllib_attention.nn.packing import PackedLayout
from rllib_attention.nn.positions import make_position
from rllib_attention.nn.views import PackedView, PrefillView, RowsView


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
        dropout: Probability of dropping an attention weight.

    Raises:
        ValueError: If a size is no integer or too small, `position` or `gate` is unknown, `dropout`
            does not lie in [0, 1), or `head_size` is odd with rotary positions.
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
        for name, value, minimum in (
            ("num_layers", num_layers, 1),
            ("window", window, 1),
            ("ffn_dim", ffn_dim, 0),
        ):
            check_int(name, value, minimum)
        self.num_layers, self.num_heads, self.window = num_layers, num_heads, window

        def build_block() -> Block:
            scheme = make_position(
                position, dim=dim, num_heads=num_heads, head_size=head_size, window=window
            )
            return Block(
                MultiHeadAttention(dim, num_heads, head_size, scheme, dropout),
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
        for depth, block in enumerate(self.blocks):
            view = PackedView(layout, self._reach(depth), self.window, dropout=dropout)
            tokens, layout = block(tokens, view), view.kept
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
        for depth, block in enumerate(self.blocks):
            size = rows.shape[1]
            view = RowsView(
                valid[:, valid.shape[1] - size :],
                min(size, num_outputs + self._reach(depth)),
                self.window,
                dropout=dropout,
                weights=weights,
            )
            rows = block(rows, view)
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
        size = rows.shape[1]
        length = np.clip(steps - starts, 0, size)
        layout = PackedLayout(size - length, np.full(len(steps), size), size, 0, rows.device)
        tokens = layout.pack(rows)
        for layer, block in enumerate(self.blocks):
            view = PrefillView(
                layout,
                self._reach(layer),
                self.window,
                cache=cache,
                layer=layer,
                slots=slots,
                steps=steps,
            )
            tokens, layout = block(tokens, view), view.kept

    def _reach(self, depth: int) -> int:
        """Steps of context that the layers after `depth` still need."""
        return (self.num_layers - 1 - depth) * (self.window - 1)
