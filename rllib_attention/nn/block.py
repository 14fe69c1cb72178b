"""One pre-norm transformer block: x + gate(attention(norm(x))), x + gate(ffn(norm(x)))."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.feed_forward import FeedForward


class Block(nn.Module):
    """Joins attention and feed-forward to their inputs by gates.

    With residual gates, no feed-forward and an identity norm this is O = H + C.

        x ──┬─ norm ─ attention ─┐      ┌─ norm ─ ffn ─┐
            └────────────────── gate ───┴───────────── gate ── out

    Args:
        attention: The attention sub-layer.
        attention_gate: Joins its output.
        feed_forward: The feed-forward sub-layer, or None.
        feed_forward_gate: Joins its output; None without one.
        dim: Embed dim D.
    """

    def __init__(
        self,
        attention: MultiHeadAttention,
        attention_gate: nn.Module,
        feed_forward: FeedForward | None,
        feed_forward_gate: nn.Module | None,
        dim: int,
    ):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.attention_gate = attention_gate
        self.feed_forward_norm = nn.LayerNorm(dim) if feed_forward is not None else None
        self.feed_forward = feed_forward
        self.feed_forward_gate = feed_forward_gate

    def forward(
        self,
        x: Tensor,
        attend: Callable[[Tensor], Tensor],
        select: Callable[[Tensor], Tensor] = lambda tokens: tokens,
        dropout: float = 0.0,
    ) -> Tensor:
        """Runs the block.

        Args:
            x: Tokens, (..., D).
            attend: Maps normed tokens to C, (..., D), for the tokens that `select` keeps. This is
                where rows, packed blocks and the KV cache differ.
            select: Keeps the tokens that later layers need.
            dropout: Probability of dropping a number that a sub-layer hands to its gate. Weights of
                attention are not dropped: torch would leave its fused kernels.

        Returns:
            The kept tokens, (..., D).
        """
        x = self.attention_gate(select(x), _drop(attend(self.attention_norm(x)), dropout))
        norm, feed_forward = self.feed_forward_norm, self.feed_forward
        gate = self.feed_forward_gate
        if norm is None or feed_forward is None or gate is None:
            return x
        return gate(x, _drop(feed_forward(norm(x)), dropout))


def _drop(update: Tensor, probability: float) -> Tensor:
    return F.dropout(update, probability) if probability else update
