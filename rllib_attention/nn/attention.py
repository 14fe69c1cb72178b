"""Multi-head attention with a sliding causal window.

α = softmax(s), s = Q Kᵀ / √E, C = α V (Vaswani et al. 2017). Shapes: B batch, N tokens, H heads,
E head size, D embed dim, Q queries, K keys.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rllib_attention.nn.checks import check_int
from rllib_attention.nn.masks import AttentionMask
from rllib_attention.nn.no_position import NoPosition


class MultiHeadAttention(nn.Module):
    """Projections and the attention between them; the caller says which query sees which key.

    Args:
        dim: Embed dim D.
        num_heads: Heads H.
        head_size: Size E of one head; scores are divided by √E.
        position: Position scheme, shared by nobody else (it may hold weights).

    Attributes:
        query_heads: Which of the heads of queries and keys, in one tensor, are queries.
        key_heads: Which of them are keys.

    Raises:
        ValueError: If a size is no positive integer.
    """

    def __init__(self, dim: int, num_heads: int, head_size: int, position: NoPosition):
        super().__init__()
        for name, value in (("dim", dim), ("num_heads", num_heads), ("head_size", head_size)):
            check_int(name, value, 1)
        self.num_heads, self.head_size = num_heads, head_size
        self.position = position
        self.query_heads, self.key_heads = slice(None, num_heads), slice(num_heads, None)
        # Where to look (queries, then keys) apart from what is read there, so that an optimizer can
        # tell them apart.
        self.look = nn.Linear(dim, 2 * num_heads * head_size, bias=False)
        self.value = nn.Linear(dim, num_heads * head_size, bias=False)
        self.out = nn.Linear(num_heads * head_size, dim, bias=False)
        _init_as_one(self.look.weight, self.value.weight)
        nn.init.xavier_uniform_(self.out.weight)
        self.register_load_state_dict_pre_hook(_split_qkv)

    def project(self, x: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Projects tokens to queries, keys and values, positions applied.

        Args:
            x: (..., D).
            angles: From `position.angles`, or None.

        Returns:
            Query, key and value, each (..., H, E); queries and keys are longer where the position
            appends to them.
        """
        # Queries and keys are rotated at once, as the heads of one tensor.
        pairs = self.position.rotate(self._heads(self.look(x)), angles)
        # `split`, because the gradient of `tensor_split` fills a tensor of zeros for each part.
        query, key = pairs.split(self.num_heads, dim=-2)
        return query, key, self._heads(self.value(x))

    def project_apart(
        self, queries: Tensor, query_angles: Tensor | None, x: Tensor, angles: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Projects some tokens to queries only, and others to keys and values only.

        Args:
            queries: The tokens that attend, (..., Q, D).
            query_angles: Their positions, from `position.angles`.
            x: The tokens attended to, (..., K, D).
            angles: Their positions.

        Returns:
            Query (..., Q, H, E), key and value, (..., K, H, E), queries and keys as in `project`.
        """
        for_query, for_key = self.look.weight.chunk(2)
        query, key = self._heads(F.linear(queries, for_query)), self._heads(F.linear(x, for_key))
        query = self.position.rotate(query, query_angles, self.query_heads)
        key = self.position.rotate(key, angles, self.key_heads)
        return query, key, self._heads(self.value(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_size))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask) -> Tensor:
        """C = softmax(s) V through torch's fused kernels.

        Args:
            query: From `project`, (..., H, Q, E or more).
            key: (..., H, K, as the query).
            value: (..., H, K, E).
            mask: Which query sees which key.

        Returns:
            (..., H, Q, E).
        """
        query, attn_mask = self._position_mask(query, mask)
        more = query.shape[-1] - self.head_size
        if more:  # fused kernels want heads of one size
            value = F.pad(value, (0, more))
        scale = self.head_size**-0.5
        context = F.scaled_dot_product_attention(query, key, value, attn_mask, scale=scale)
        return context[..., : self.head_size]

    def weights(self, query: Tensor, key: Tensor, mask: AttentionMask) -> Tensor:
        """The weights α themselves, computed step by step.

        Args:
            query: From `project`, (..., H, Q, E or more).
            key: (..., H, K, as the query).
            mask: Which query sees which key.

        Returns:
            α, (..., H, Q, K); each query's weights add to 1.
        """
        query, attn_mask = self._position_mask(query, mask)
        scores = query @ key.transpose(-1, -2) / self.head_size**0.5
        return (scores + attn_mask).softmax(dim=-1)

    def merge(self, context: Tensor) -> Tensor:
        """Merges heads and projects: (..., H, E) → (..., D)."""
        return self.out(context.flatten(-2))

    def _position_mask(self, query: Tensor, mask: AttentionMask) -> tuple[Tensor, Tensor]:
        """Returns the content query, and the mask with the position score where there is one."""
        bias = mask.joined(self.position)
        query, position_query = self.position.split_query(query)
        if position_query is not None:
            where = self.position.bias(position_query, mask.distance, self.position.rows())
            bias = torch.add(bias, where, alpha=self.head_size**-0.5)
        return query, bias.to(query.dtype)


def _init_as_one(*weights: Tensor) -> None:
    """Initialises maps of the same input as the one map that they were cut from (Xavier)."""
    sizes = [len(weight) for weight in weights]
    joined = nn.init.xavier_uniform_(torch.empty(sum(sizes), weights[0].shape[1]))
    with torch.no_grad():
        for weight, part in zip(weights, joined.split(sizes), strict=True):
            weight.copy_(part)


def _split_qkv(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args: object
) -> None:
    """Reads weights that were saved when queries, keys and values were one map."""
    joined = state_dict.pop(f"{prefix}qkv.weight", None)
    if joined is not None:
        size = len(joined) // 3
        look, value = joined.split((2 * size, size))
        state_dict |= {f"{prefix}look.weight": look, f"{prefix}value.weight": value}
