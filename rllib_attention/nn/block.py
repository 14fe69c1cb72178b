"""One pre-norm transformer block: x + gate(attention(norm(x))), x + gate(ffn(norm(x)))."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.checks import check_int
from rllib_attention.nn.feed_forward import FeedForward
from rllib_attention.nn.gates import Gate
from rllib_attention.nn.start_embedding import StartEmbedding
from rllib_attention.nn.views import View


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
        start_embedding: Whether attention's output says which share of the window lies before the
            episode: see `StartEmbedding`.

    Raises:
        ValueError: If `dim` is no positive integer, or there is a feed-forward without a gate or
            the reverse.
    """

    def __init__(
        self,
        attention: MultiHeadAttention,
        attention_gate: Gate,
        feed_forward: FeedForward | None,
        feed_forward_gate: Gate | None,
        dim: int,
        *,
        start_embedding: bool = False,
    ):
        super().__init__()
        check_int("dim", dim, 1)
        if (feed_forward is None) != (feed_forward_gate is None):
            raise ValueError(
                "`feed_forward_gate` must be given with `feed_forward` and only then, got "
                f"{feed_forward_gate} with {feed_forward}."
            )
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.attention_gate = attention_gate
        self.start = StartEmbedding(dim) if start_embedding else None
        self.feed_forward_norm = nn.LayerNorm(dim) if feed_forward is not None else None
        self.feed_forward = feed_forward
        self.feed_forward_gate = feed_forward_gate

    def written_parameters(self) -> Iterator[nn.Parameter]:
        """Returns the parameters of what the block writes to a token.

        All but those of where it looks: queries, keys and positions.
        """
        attention = self.attention
        looks = {*attention.look.parameters(), *attention.position.parameters()}
        return (parameter for parameter in self.parameters() if parameter not in looks)

    def forward(self, x: Tensor, view: View, dropout: float = 0.0) -> Tensor:
        """Runs the block.

        Args:
            x: Tokens, (..., D).
            view: Which tokens see which, and which of them are kept.
            dropout: Probability of dropping a number that a sub-layer hands to its gate. Weights of
                attention are not dropped: torch would leave its fused kernels.

        Returns:
            The kept tokens, (..., D).
        """
        update = view.attend(self.attention, self.attention_norm(x))
        if self.start is not None:
            update = self.start(update, view.missing)
        x = self.attention_gate(view.keep(x), _drop(update, dropout))
        norm, feed_forward = self.feed_forward_norm, self.feed_forward
        gate = self.feed_forward_gate
        if norm is None or feed_forward is None or gate is None:
            return x
        return gate(x, _drop(feed_forward(norm(x)), dropout))


def _drop(update: Tensor, probability: float) -> Tensor:
    return F.dropout(update, probability) if probability else update
