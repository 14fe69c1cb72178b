"""The stack of blocks on one new step of each slot, with a KV cache.

Shapes: B batch, H heads, E head size, D embed dim, W window.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rllib_attention.nn.block import Block
from rllib_attention.nn.gates import ResidualGate
from rllib_attention.nn.kv_cache import KVCache, StepIndex
from rllib_attention.nn.positions import NoPosition, RotaryPosition
from rllib_attention.nn.transformer import Transformer

# Rotations of the first steps are kept, 24 bytes for each entry of a head.
_TABLE_SIZE = 2048


class Stepper:
    """Computes single steps: the function of `Transformer.forward`, in as few kernels as possible.

    At one token for each sub-environment, starting kernels and calling modules is all the cost. So
    the weights are gathered here once, and a rotation becomes part of the projection before it.
    A change of weights needs a new Stepper.

    Args:
        transformer: The stack.
    """

    def __init__(self, transformer: Transformer):
        self._layers = [_Layer(block) for block in transformer.blocks]
        self._norm = _norm(transformer.norm)
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
            cache: Holds the last W - 1 steps of each slot at least.
            slots: Which slot each row belongs to, (B,).
            steps: Time step of each row in its episode, (B,).
            starts: First cached step of each row's episode, (B,).

        Returns:
            (B, D).
        """
        index = cache.index(slots, steps, starts)
        turn = self._turn(steps, tokens)
        for number, layer in enumerate(self._layers):
            heads = layer.project(tokens, turn)
            cache.write(number, index, heads[:, layer.num_heads :])
            key, value = cache.read(number, index)
            weights = layer.scores(heads[:, : layer.num_heads], key, index).softmax(dim=-1)
            context = torch.bmm(weights, value).view(len(tokens), -1)
            tokens = layer.finish(tokens, context)
        return torch.layer_norm(tokens, *self._norm)

    def _turn(self, steps: np.ndarray, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns cosines and sines for query, key and value, (B, 3, 1, E) each."""
        if not isinstance(self._position, RotaryPosition):
            return None
        is_small = steps.max() < _TABLE_SIZE
        head_size, base = self._position.head_size, self._position.base
        turns = _table(head_size, base)[steps] if is_small else _turns(head_size, base, steps)
        cos, sin = torch.from_numpy(turns).to(like).unbind(1)
        return cos, sin


_Norm = tuple[tuple[int, ...], Tensor, Tensor, float]


class _FeedForward(NamedTuple):
    """The weights of one block's feed-forward."""

    norm: _Norm
    expand: Tensor
    contract: Tensor
    gate: nn.Module


class _Layer:
    """The weights of one block."""

    def __init__(self, block: Block):
        attention = block.attention
        self.num_heads, self.head_size = attention.num_heads, attention.head_size
        self.position = attention.position
        self.norm = _norm(block.attention_norm)
        self.inward = _with_turned(attention.qkv.weight, self.position).detach().t()
        self.outward = attention.out.weight.detach().t()
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

    def project(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
        """(B, D) → queries, keys and values, (B, 3*H, E)."""
        heads = torch.layer_norm(x, *self.norm) @ self.inward
        if turn is not None:
            plain, turned = heads.view(len(x), 2, 3, self.num_heads, self.head_size).unbind(1)
            heads = torch.addcmul(plain * turn[0], turned, turn[1])
        return heads.view(len(x), -1, self.head_size)

    def scores(self, query: Tensor, key: Tensor, index: StepIndex) -> Tensor:
        """Queries (B, H, E) and keys (B*H, E, W) → scores (B*H, 1, W)."""
        bias, scale = index.bias, self.head_size**-0.5
        query, position_query = self.position.split_query(query.unsqueeze(-2))
        if position_query is not None:
            where = self.position.bias(position_query, index.distance())
            bias = torch.add(bias, where.flatten(0, 1), alpha=scale)
        return torch.baddbmm(bias, query.flatten(0, 1), key, alpha=scale)

    def finish(self, x: Tensor, context: Tensor) -> Tensor:
        """Joins C, (B, H*E), and the feed-forward to the block's input, (B, D)."""
        x = _join(self.gate, x, context, self.outward)
        if self.feed_forward is None:
            return x
        norm, expand, contract, gate = self.feed_forward
        hidden = (torch.layer_norm(x, *norm) @ expand).relu_()
        return _join(gate, x, hidden, contract)


def _join(gate: nn.Module, x: Tensor, inner: Tensor, weight: Tensor) -> Tensor:
    """Returns gate(x, inner @ weight)."""
    if isinstance(gate, ResidualGate):
        return torch.addmm(x, inner, weight)
    return gate(x, inner @ weight)


def _norm(norm: nn.LayerNorm) -> _Norm:
    return tuple(norm.normalized_shape), norm.weight.detach(), norm.bias.detach(), norm.eps


def _with_turned(weight: Tensor, position: NoPosition) -> Tensor:
    """Appends, for a rotation, the projection turned by 90 degrees, (3*H*E, D) → (6*H*E, D).

    Rotating a pair (a, b) gives (a, b) cos + (-b, a) sin.
    """
    if not isinstance(position, RotaryPosition):
        return weight
    first, second = weight.unflatten(0, (-1, 2)).unbind(1)
    return torch.cat((weight, torch.stack((-second, first), dim=1).flatten(0, 1)))


@functools.lru_cache(maxsize=8)
def _table(head_size: int, base: float) -> np.ndarray:
    return _turns(head_size, base, np.arange(_TABLE_SIZE))


def _turns(head_size: int, base: float, steps: np.ndarray) -> np.ndarray:
    """Returns cosines and sines for query, key and value (not turned), (B, 2, 3, 1, E)."""
    angles = RotaryPosition(head_size, base).angles(steps).repeat(2, axis=-1)
    turns = np.zeros((len(steps), 2, 3, 1, head_size), np.float32)
    turns[:, 0] = 1.0
    turns[:, 0, :2], turns[:, 1, :2] = angles.real[:, None], angles.imag[:, None]
    return turns
