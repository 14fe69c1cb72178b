"""The stack of blocks, over rows, over packed tokens, and step by step with a KV cache.

The three paths compute the same function (`tests/nn/test_transformer.py` holds them against each
other). Layer l attends to W steps that lie d^l apart, so that a stack of L layers sees
(W-1)(1 + d + … + d^(L-1)) steps back; every path drops, layer by layer, the context that no later
layer can reach. Shapes: B batch, S tokens in a row, T outputs,
N packed tokens, H heads, E head size, D embed dim, L layers, W window.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.block import Block
from rllib_attention.nn.checks import check_int, check_number
from rllib_attention.nn.feed_forward import FeedForward
from rllib_attention.nn.gates import make_gate
from rllib_attention.nn.kv_cache import KVCache
from rllib_attention.nn.packing import PackedLayout
from rllib_attention.nn.positions import make_position
from rllib_attention.nn.sending import send
from rllib_attention.nn.views import PackedView, PrefillView, RecordedView, RowsView, View


class Transformer(nn.Module):
    """Causal sliding-window transformer.

    Args:
        dim: Embed dim D.
        num_layers: Blocks L.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Time steps W that each layer attends to, the current one included.
        dilation: Layer l, from 0, attends to steps that lie `dilation ** l` apart.
        ffn_dim: Hidden width of the feed-forward; 0 for none.
        ffn_gain: Share of its usual size at which what the feed-forward adds starts.
        position: "relative_bias", "relative", "recency", "rotary" or "none".
        gate: "residual" or "gru".
        gate_bias: Initial bias of the GRU gates.
        dropout: Probability of dropping a number that a sub-layer adds, in training passes.
        start_embedding: Whether each layer is told, by a learned vector, which share of its window
            lies before the episode.

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
        dilation: int = 1,
        ffn_dim: int = 0,
        ffn_gain: float = 1.0,
        position: str = "rotary",
        gate: str = "residual",
        gate_bias: float = 2.0,
        dropout: float = 0.0,
        start_embedding: bool = False,
    ):
        super().__init__()
        for name, value, minimum in (
            ("num_layers", num_layers, 1),
            ("window", window, 1),
            ("dilation", dilation, 1),
            ("ffn_dim", ffn_dim, 0),
        ):
            check_int(name, value, minimum)
        check_number("dropout", dropout, 0.0, 1.0)
        self.num_layers, self.window, self.dropout = num_layers, window, dropout
        self.strides = [dilation**depth for depth in range(num_layers)]

        def build_block() -> Block:
            scheme = make_position(
                position, dim=dim, num_heads=num_heads, head_size=head_size, window=window
            )
            return Block(
                MultiHeadAttention(dim, num_heads, head_size, scheme),
                make_gate(gate, dim=dim, bias=gate_bias),
                FeedForward(dim, ffn_dim, ffn_gain) if ffn_dim else None,
                make_gate(gate, dim=dim, bias=gate_bias) if ffn_dim else None,
                dim,
                start_embedding=start_embedding,
            )

        blocks = nn.ModuleList(build_block() for _ in range(num_layers))
        # To torch, the items of a list are modules of any kind.
        self.blocks = cast("Sequence[Block]", blocks)
        self.norm = nn.LayerNorm(dim)
        # Outputs of norm 1 at first, not of √D: RLlib's heads start with weights of usual size, and
        # an initial policy that is far from uniform explores badly.
        nn.init.constant_(self.norm.weight, dim**-0.5)

    @property
    def context_len(self) -> int:
        """Past time steps that the output at one step depends on."""
        return (self.window - 1) * sum(self.strides)

    @property
    def distance_bias(self) -> Tensor | None:
        """What the position scheme adds to scores at each distance, (H, W); None for nothing."""
        position = self.blocks[0].attention.position  # of the same scheme in every block
        device = self.norm.weight.device
        bias = position.fixed_bias(torch.arange(self.window, device=device)[None])
        return None if bias is None else bias.squeeze(1)

    def forward(self, tokens: Tensor, layout: PackedLayout, *, dropout: bool = False) -> Tensor:
        """Runs packed tokens: no work on padding, cost linear in tokens and window.

        Args:
            tokens: The valid tokens of all rows, (N, D).
            layout: Where they come from.
            dropout: Whether this is a training pass.

        Returns:
            The output tokens in packed order, to be given to `layout.unpack`.
        """
        return self.run(tokens, self.views(layout), dropout=dropout)

    def views(self, layout: PackedLayout, *, uniform: bool = False) -> Sequence[View]:
        """Returns each layer's view of packed tokens: all that the host has to work out.

        Args:
            layout: Where the tokens come from.
            uniform: Whether the same operations serve every layout, so that they are compiled once.
        """
        key = (self.window, *self.strides, uniform)
        views: list[PackedView] = layout.remember(key, lambda: self._views(layout, uniform))
        for block, view in zip(self.blocks, views, strict=True):
            view.prepare(block.attention.position, layout.device)
        return views

    def run(self, tokens: Tensor, views: Sequence[View], *, dropout: bool = False) -> Tensor:
        """Runs the stack: nothing but operations on tensors.

        Args:
            tokens: (N, D), or rows of them.
            views: From `views` or `rows_views`.
            dropout: Whether this is a training pass.

        Returns:
            The output tokens, in the order of the last view's kept ones.
        """
        probability = self.dropout if dropout else 0.0
        for block, view in zip(self.blocks, views, strict=True):
            tokens = block(tokens, view, probability)
        return self.norm(tokens)

    def forward_rows(
        self,
        rows: Tensor,
        valid: Tensor,
        num_outputs: int,
        *,
        dropout: bool = False,
    ) -> Tensor:
        """Runs rows of tokens as they are: best for short rows with few outputs.

        Args:
            rows: (B, S, D), time runs along each row.
            valid: Which tokens are real, (B, S).
            num_outputs: Outputs T at the end of each row.
            dropout: Whether this is a training pass.

        Returns:
            (B, T, D).
        """
        read, views = self.rows_views(valid, num_outputs)
        rows = rows if read is None else rows.index_select(1, read)
        return self.run(rows, views, dropout=dropout)

    def rows_views(
        self, valid: Tensor, num_outputs: int, *, uniform: bool = False
    ) -> tuple[Tensor | None, Sequence[View]]:
        """Returns each layer's view of rows: all that the host has to work out.

        Args:
            valid: Which tokens are real, (B, S).
            num_outputs: Outputs T at the end of each row.
            uniform: As for `views`.

        Returns:
            Which of a row's tokens are read at all, None for all of them, and the views.
        """
        steps, *needed = self._needed(valid.shape[1], num_outputs)
        read = None if len(steps) == valid.shape[1] else send(steps, valid.device)
        valid = valid if read is None else valid.index_select(1, read)
        views = []
        for block, stride, kept in zip(self.blocks, self.strides, needed, strict=True):
            view = RowsView(valid, steps, kept, self.window, stride, uniform=uniform)
            view.prepare(block.attention.position, valid.device)
            views.append(view)
            valid, steps = view.keep(valid), kept
        return read, views

    @torch.no_grad()
    def record(self, tokens: Tensor) -> Tensor:
        """Returns which earlier tokens each token of a sequence attends to, as `forward` does.

        Memory is that of the result, not that of a weight for each pair of tokens.

        Args:
            tokens: One sequence without padding, (N, D).

        Returns:
            The weights α, (L, H, N, W) on the host: entry k of layer l is the weight of the key
            that lies `k * strides[l]` steps before the query; 0 where there is none.
        """
        size = len(tokens)
        layout = PackedLayout(np.array([0]), np.array([size]), size, size, tokens.device)
        weights: list[Tensor] = []
        for block, _, stride in self._layers():
            view = RecordedView(layout, stride, self.window, weights)
            tokens, layout = block(tokens, view), view.kept
        return torch.stack(weights)

    def prefill(
        self,
        tokens: Tensor,
        length: np.ndarray,
        cache: KVCache,
        slots: np.ndarray,
        steps: np.ndarray,
    ) -> None:
        """Fills the cache with the context before the next step of some slots.

        Args:
            tokens: The last steps of each slot, slot by slot, (N, D).
            length: How many of them each slot has, (B,), in all N; at most `context_len`.
            cache: To be written.
            slots: (B,).
            steps: The next step of each slot, (B,): the one after its last token.
        """
        size = int(length.max(initial=0))
        layout = PackedLayout(size - length, np.full_like(length, size), size, 0, tokens.device)
        for layer, (block, context, stride) in enumerate(self._layers()):
            view = PrefillView(
                layout,
                context,
                stride,
                self.window,
                cache=cache,
                layer=layer,
                slots=slots,
                steps=steps,
            )
            tokens, layout = block(tokens, view), view.kept

    def _views(self, layout: PackedLayout, uniform: bool) -> list[PackedView]:
        views = []
        for _, context, stride in self._layers():
            views.append(PackedView(layout, context, stride, self.window, uniform=uniform))
            layout = views[-1].kept
        return views

    def _layers(self) -> Iterator[tuple[Block, int, int]]:
        """Returns each block, the context that later ones read, and the stride of the next one."""
        for depth, block in enumerate(self.blocks):
            later = self.strides[depth + 1 :]
            yield block, (self.window - 1) * sum(later), later[0] if later else 1

    def _needed(self, size: int, num_outputs: int) -> list[np.ndarray]:
        """Returns the steps of a row that each layer reads, and those of the outputs."""
        read = np.arange(size) >= size - num_outputs
        needed = [np.flatnonzero(read)]
        for stride in reversed(self.strides):
            for back in range(stride, min(self.window * stride, size), stride):
                read[needed[0][needed[0] >= back] - back] = True
            needed.insert(0, np.flatnonzero(read))
        return needed
