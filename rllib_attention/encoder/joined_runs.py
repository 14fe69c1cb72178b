"""Observations and next observations of the same runs, in one tensor: DQN's double Q-learning.

The next observations of a run are its observations some steps later, so that nearly all tokens are
there twice. They become one run:

    observations         c c c 1 2 3 4          c: context, numbers: outputs
    next observations    c c 1 2 3 4 n
    joined               c c c 1 2 3 4 n

Shapes: B transitions, K tokens in a row, R runs, N tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rllib_attention.encoder.run_tags import FIRST, KIND, NEW, NEXT, OUTPUT, ROW
from rllib_attention.nn import PackedLayout
from rllib_attention.nn.packing import ranges


@dataclass(frozen=True)
class _Runs:
    """The runs of one stream; each has (R,).

    Attributes:
        first: The first token of each, among all of the tensor.
        stop: The token after its last.
        num_outputs: How many outputs it has.
        num_new: How many of its tokens are none of the observations.
    """

    first: np.ndarray
    stop: np.ndarray
    num_outputs: np.ndarray
    num_new: np.ndarray


def join(
    tags: np.ndarray, packed: Tensor, *, is_same: bool = False
) -> tuple[Tensor, PackedLayout, Tensor] | None:
    """Joins the runs of observations with those of the next ones behind them.

    Args:
        tags: Tags of all tokens, (2 * B, K).
        packed: All tokens, (2 * B, K, P).
        is_same: Whether both streams are known to be of one batch, so that the steps that should be
            the same are. Else they are compared, and the device is waited for.

    Returns:
        The index of each token that is needed, (N,), the layout of the joined runs, and the output
        of each row, (2 * B,). None if the tensor holds anything else, or if the steps that should
        be the same are not.
    """
    half = len(tags) // 2
    if not _are_two_streams(tags, half):
        return None
    now, later = _runs(tags[:half], 0), _runs(tags[half:], half * tags.shape[1])
    if not np.array_equal(now.num_outputs, later.num_outputs) or not later.num_new.all():
        return None
    border = later.stop - later.num_new  # between what both have and what is new
    shared = now.stop - (border - later.first)
    if (shared < now.first).any():
        return None
    if not (is_same or _are_same(packed, ranges(shared, now.stop), ranges(later.first, border))):
        return None
    # Of each run, all that is now, then what is new later.
    begin, end = (
        np.stack(pair, 1).ravel() for pair in ((now.first, border), (now.stop, later.stop))
    )
    num_outputs = now.num_outputs + later.num_new
    num_context = now.stop - now.first - now.num_outputs
    context, outputs = int(num_context.max()), int(num_outputs.max())
    layout = PackedLayout(
        context - num_context, context + num_outputs, context + outputs, outputs, packed.device
    )
    place = num_outputs.cumsum() - num_outputs
    rows = [ranges(place + lag, place + lag + now.num_outputs) for lag in (0, later.num_new)]
    return layout.send(ranges(begin, end)), layout, layout.send(np.concatenate(rows))


def _are_two_streams(tags: np.ndarray, half: int) -> bool:
    """Returns whether whole rows of observations lie before as many of next ones."""
    if len(tags) != 2 * half:
        return False
    is_next = (tags & NEXT > 0) & (tags & KIND > 0)
    rows = tags[:, 0] // ROW
    is_output = (tags & KIND == OUTPUT).reshape(2, -1).sum(1)
    return (
        np.array_equal(rows, np.tile(np.arange(half), 2))
        and (is_output == half).all()
        and not is_next[:half].any()
        and np.array_equal(is_next[half:], tags[half:] & KIND > 0)
    )


def _runs(tags: np.ndarray, offset: int) -> _Runs:
    """Returns the runs of a stream whose tokens lie behind `offset` others."""
    tags = tags.ravel()
    first = np.flatnonzero(tags & FIRST)
    stop = np.append(first[1:], np.count_nonzero(tags & KIND))  # padding is at the end
    is_output = np.add.reduceat(tags & KIND == OUTPUT, first, dtype=np.int64)
    num_new = np.add.reduceat(tags & NEW > 0, first, dtype=np.int64)
    return _Runs(first + offset, stop + offset, is_output, num_new)


def _are_same(packed: Tensor, some: np.ndarray, others: np.ndarray) -> bool:
    """Returns whether tokens hold the same steps; tags are not looked at."""
    tag_size = 4 if packed.dtype == torch.uint8 else 1
    tokens = packed.detach().flatten(0, 1)[:, :-tag_size]
    left, right = (
        tokens.index_select(0, torch.from_numpy(index).to(packed.device))
        for index in (some, others)
    )
    return torch.equal(left, right)
