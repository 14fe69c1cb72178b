"""One step of the stack as a pure function of tensors, past in and past out: what is exported.

Shapes: B batch, W window, s stride, P past steps s(W-1), H heads, E head size, D embed dim.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.masks import AttentionMask
from rllib_attention.nn.transformer import Transformer


class ContextStep:
    """Computes one new step of each row: the function of `Transformer.forward`, without a cache.

    Layer l is given the keys and values of the last s(W-1) steps of each row, the newest last, and
    returns those of the steps that the next one needs. Keys are kept without their positions:
    scores depend on the distance between query and key only, and in this order the distances are
    always the same. So no clock is needed, and an episode may go on for ever.

    Args:
        transformer: The stack.

    Attributes:
        past_shapes: What each layer is given for a row, (P, 2, H, E): keys, then values.
        past_steps: Past steps that any layer looks at.
    """

    def __init__(self, transformer: Transformer):
        self._transformer = transformer
        attention, reach = transformer.blocks[0].attention, transformer.window - 1
        heads = (2, attention.num_heads, attention.head_size)
        self.past_shapes = [(stride * reach, *heads) for stride in transformer.strides]
        self.past_steps = max(transformer.strides) * reach

    def __call__(
        self, tokens: Tensor, length: Tensor, past: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Runs one new step of each row.

        Args:
            tokens: (B, D).
            length: How many steps each row's episode has had, (B,); those beyond `past_steps` need
                not be counted.
            past: Keys and values for each layer, (B, P, 2, H, E). What lies before an episode's
                start is arbitrary, but finite.

        Returns:
            Outputs (B, D), and the next step's `past`.
        """
        transformer, new = self._transformer, []
        for block, stride, before in zip(
            transformer.blocks, transformer.strides, past, strict=True
        ):
            view = _PastView(before, length, transformer.window, stride)
            tokens = block(tokens, view)
            new.append(view.past)
        return transformer.norm(tokens), new


class _PastView:
    """One layer's new tokens, and the keys and values before them.

    Args:
        past: (B, P, 2, H, E).
        length: Past steps of each row, (B,).
        window: Time steps W that a query attends to.
        stride: Time steps s between them.
    """

    def __init__(self, past: Tensor, length: Tensor, window: int, stride: int):
        self.past, self._stride = past, stride
        self._distance = np.arange(window)[::-1].copy()  # in strides, of each key to the query
        distance = torch.from_numpy(self._distance).to(past.device)
        is_before = distance * stride > length[:, None, None, None]
        self.missing = is_before.to(past.dtype).mean(-1).flatten(1)  # (B, 1)
        zeros = torch.zeros_like(is_before, dtype=past.dtype)
        self._mask = AttentionMask(zeros.masked_fill(is_before, -torch.inf), distance[None])

    def attend(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Maps normed tokens (B, D) to C, (B, D), and moves the past on by a step."""
        projected = torch.cat((attention.look(x), attention.value(x)), dim=-1)
        heads = projected.unflatten(-1, (3, attention.num_heads, attention.head_size))
        steps = torch.cat((self.past, heads[:, None, 1:]), dim=1)
        self.past = steps[:, 1:]
        key, value = steps[:, :: self._stride].unbind(2)  # (B, W, H, E)
        position = attention.position
        at_query = position.angles(self._distance[-1:], x.device)
        query = position.rotate(heads[:, :1], at_query, attention.query_heads)
        at_keys = position.angles(-self._distance, x.device)
        key = position.rotate(key, at_keys, attention.key_heads)
        weights = attention.weights(query.transpose(1, 2), key.transpose(1, 2), self._mask)
        return attention.merge((weights @ value.transpose(1, 2)).squeeze(2))

    def keep(self, x: Tensor) -> Tensor:
        """Returns all tokens."""
        return x
