"""The stack of blocks on one new step of each slot, with a KV cache.

Shapes: B batch, H heads, E head size, D embed dim, W window.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rllib_attention.nn.block import Block
from rllib_attention.nn.gates import Gate
from rllib_attention.nn.kv_cache import KVCache
from rllib_attention.nn.rings import StepIndex
from rllib_attention.nn.start_embedding import StartEmbedding
from rllib_attention.nn.transformer import Transformer


class Stepper:
    """Computes single steps: the function of `Transformer.forward`, in as few kernels as possible.

    At one token for each sub-environment, starting kernels and calling modules is all the cost. So
    what depends on weights alone is worked out here once. A change of weights needs a new Stepper.

    Args:
        transformer: The stack.
    """

    @torch.no_grad()
    def __init__(self, transformer: Transformer):
        self._layers = [_Layer(block) for block in transformer.blocks]
        self._norm = _norm(transformer.norm)
        self._strides = transformer.strides
        # The scheme is the same in every block.
        self._position = transformer.blocks[0].attention.position

    @torch.no_grad()
    def step(
        self,
        tokens: Tensor,
        cache: KVCache,
        slots: np.ndarray,
        steps: np.ndarray,
        starts: np.ndarray,
    ) -> Tensor:
        """Runs one new step of each slot and adds it to the cache.

        Args:
            tokens: (B, D).
            cache: Holds what earlier steps of each slot wrote.
            slots: Which slot each row belongs to, (B,).
            steps: Time step of each row in its episode, (B,).
            starts: First cached step of each row's episode, (B,).

        Returns:
            (B, D).
        """
        places = cache.locate(slots, steps, starts)
        angles: dict[int, Tensor | None] = dict.fromkeys(places)
        if self._position.turns_cached:
            angles = {s: self._position.angles(steps // s, tokens.device) for s in places}
        for number, (layer, stride) in enumerate(zip(self._layers, self._strides, strict=True)):
            index = places[stride]
            heads = layer.project(tokens, angles[stride])
            cache.write(number, index, heads[:, layer.num_heads :])
            key, value = cache.read(number, index)
            weights = layer.scores(heads[:, : layer.num_heads], key, index).softmax(dim=-1)
            context = torch.bmm(weights, value).view(len(tokens), -1)
            tokens = layer.finish(tokens, context, index.missing)
        return torch.layer_norm(tokens, *self._norm)


_Norm = tuple[tuple[int, ...], Tensor, Tensor, float]


class _FeedForward(NamedTuple):
    """The weights of one block's feed-forward."""

    norm: _Norm
    expand: Tensor
    contract: Tensor
    gate: Gate


class _Layer:
    """The weights of one block."""

    def __init__(self, block: Block):
        attention = block.attention
        self.num_heads, self.head_size = attention.num_heads, attention.head_size
        self.position = attention.position
        self.norm = _norm(block.attention_norm)
        self.inward = torch.cat((attention.look.weight, attention.value.weight)).detach().t()
        self.rows = self.position.rows()
        self.outward = attention.out.weight.detach().t()
        self.outward_at_start: Tensor | None = None
        if block.start is not None:
            self.outward_at_start = block.start.outward(self.outward).detach()
        self.gate = block.attention_gate
        self.feed_forward: _FeedForward | None = None
        if block.feed_forward is not None:
            assert block.feed_forward_norm is not None
            assert block.feed_forward_gate is not None
            self.feed_forward = _FeedForward(
                _norm(block.feed_forward_norm),
                block.feed_forward.expand.weight.detach().t(),
                block.feed_forward.contract.weight.detach().t(),
                block.feed_forward_gate,
            )

    def project(self, x: Tensor, angles: Tensor | None) -> Tensor:
        """(B, D) → queries, keys and values, (B, 3*H, E)."""
        heads = torch.layer_norm(x, *self.norm) @ self.inward
        heads = heads.view(len(x), -1, self.head_size)
        self.position.rotate_(heads[:, : 2 * self.num_heads], angles)
        return heads

    def scores(self, query: Tensor, key: Tensor, index: StepIndex) -> Tensor:
        """Queries (B, H, E) and keys (B*H, E, W) → scores (B*H, 1, W)."""
        # The index has the fixed part of the position's bias.
        bias, scale = index.bias, self.head_size**-0.5
        query, position_query = self.position.split_query(query.unsqueeze(-2))
        if self.rows is not None:
            where = self.position.bias(position_query, index.distance(), self.rows)
            bias = torch.add(bias, where.flatten(0, 1), alpha=scale)
        return torch.baddbmm(bias, query.flatten(0, 1), key, alpha=scale)

    def finish(self, x: Tensor, context: Tensor, missing: Tensor | None) -> Tensor:
        """Joins C, (B, H*E), and the feed-forward to the block's input, (B, D)."""
        if missing is None or self.outward_at_start is None:
            x = self.gate.project(x, context, self.outward)
        else:
            x = self.gate.project(x, StartEmbedding.joined(context, missing), self.outward_at_start)
        if self.feed_forward is None:
            return x
        norm, expand, contract, gate = self.feed_forward
        hidden = (torch.layer_norm(x, *norm) @ expand).relu_()
        return gate.project(x, hidden, contract)


def _norm(norm: nn.LayerNorm) -> _Norm:
    return tuple(norm.normalized_shape), norm.weight.detach(), norm.bias.detach(), norm.eps
