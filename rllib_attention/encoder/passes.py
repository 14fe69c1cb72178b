"""What an encoder computes once the host's work is done: operations on tensors, to be compiled.

Layouts, masks and positions are worked out before, on the host, so that the pass is one graph. Its
tensors of all batches have the same number of dimensions, and those whose sizes vary are marked, so
that one graph serves all batches. Shapes: N steps, S steps in a row, P stacked rows, D embed dim.
"""

import functools
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from rllib_attention.encoder.embedding import Embedding
from rllib_attention.nn import Transformer, View, may_vary

Pass = Callable[..., Tensor]


def run_pass(
    embedding: Embedding,
    transformer: Transformer,
    obs: Tensor,
    prev: Tensor | None,
    views: Sequence[View],
    dropout: bool,
    row_size: int | None,
) -> Tensor:
    """Runs steps through an encoder's parts.

    Args:
        embedding: From steps to tokens.
        transformer: The stack.
        obs: (N, *obs).
        prev: Previous actions and rewards, (N, P); None without such inputs.
        views: How tokens see each other.
        dropout: Whether to drop out.
        row_size: Steps S in a row, if the views are of rows; else None.

    Returns:
        The outputs in the views' order, (..., D).
    """
    tokens = embedding(obs, prev)
    if row_size is not None:
        tokens = tokens.unflatten(0, (-1, row_size))
    return transformer.run(tokens, views, dropout=dropout)


def compiled_pass(kind: Hashable, *args: Any, **kwargs: Any) -> Pass:
    """Returns `run_pass`, compiled.

    Args:
        kind: Encoders of the same kind share their graphs.
        *args: As for `torch.compile`.
        **kwargs: As for `torch.compile`; graphs are whole by default.
    """
    compiled = torch.compile(_own_code(kind), *args, **{"fullgraph": True} | kwargs)

    def run(
        embedding: Embedding,
        transformer: Transformer,
        obs: Tensor,
        prev: Tensor | None,
        *others: Any,
    ) -> Tensor:
        # Strides would make a graph of their own.
        obs, prev = obs.contiguous(), None if prev is None else prev.contiguous()
        may_vary(obs, 0)
        may_vary(prev, 0)
        return compiled(embedding, transformer, obs, prev, *others)

    return run


@functools.cache
def _own_code(kind: Hashable) -> Pass:
    """Returns `run_pass` with code of its own: torch gives up after a few graphs of one code."""
    code = run_pass.__code__.replace(co_name=f"attention_{hash(kind):x}")
    return types.FunctionType(code, run_pass.__globals__, code.co_name)
