"""Runs of consecutive transitions in one tensor with a row for each transition.

The T transitions of a run share their context: C + T tokens serve T outputs. All tokens of a
batch's runs form one stream, which is chopped into as many rows as there are transitions:

    runs (T=4)    c c c 1 2 3 4   c 5 6 7   8       c: context, numbers: outputs
    rows (B=8)    c c | c 1 | 2 3 | 4 c | 5 6 | 7 8 | . . | . .

Row i and output i belong together in every other column of the batch, though not in this tensor.
A token's tag says what it is, where runs begin, and which row it lies in, so that rows that were
repeated (CQL) or put behind those of another stream (DQN) still make sense, and all else is an
error. Shapes: B transitions, K tokens in a row, R runs, N tokens in all.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from rllib_attention.nn import PackedLayout
from rllib_attention.nn.packing import ranges

_CONTEXT, _OUTPUT, _KIND = 1, 2, 3
_FIRST = 4  # the first token of a run
_NEXT = 8  # a stream of next observations
_ROW = 16  # times the token's row
MAX_ROWS = 2**24 // _ROW  # that float32 can count


def stream_tags(
    num_context: np.ndarray, num_outputs: np.ndarray, row_size: int, *, is_next: bool
) -> np.ndarray:
    """Returns the tags of a stream of runs.

    Args:
        num_context: Context tokens of each run, (R,).
        num_outputs: Outputs of each run, (R,), in all B.
        row_size: Tokens K in a row, so that all fit into B rows.
        is_next: Whether these are next observations.

    Returns:
        (B * K,), whole numbers.
    """
    num_rows, size = int(num_outputs.sum()), num_context + num_outputs
    tags = np.repeat(np.arange(num_rows) * _ROW, row_size)
    output_of = ranges(num_context, size)
    first = size.cumsum() - size
    tags[: size.sum()] += _CONTEXT
    tags[np.repeat(first, num_outputs) + output_of] += _OUTPUT - _CONTEXT
    tags[first] += _FIRST
    return tags + _NEXT * is_next


def window_tags(is_real: np.ndarray, *, is_next: bool) -> np.ndarray:
    """Returns the tags of windows that each row has for itself: 0 in padding.

    Args:
        is_real: Which tokens are real, any shape.
        is_next: Whether these are next observations.
    """
    return is_real * (_CONTEXT + _NEXT * is_next)


@dataclass(frozen=True)
class RunLayout:
    """Where the runs of a tensor are.

    Attributes:
        is_next: Whether all of them are next observations, of which nothing is trained.
        tokens: Index of each real token among all, rows repeated or not, (N,); None for all.
        packed: The layout of the runs' tokens, one row for each run.
        outputs: Which output belongs to each row, None if each has its own.
    """

    is_next: bool
    tokens: Tensor | None
    packed: PackedLayout
    outputs: Tensor | None


@dataclass(frozen=True)
class WindowLayout:
    """Each row is a window of its own.

    Attributes:
        is_next: Whether all of them are next observations, of which nothing is trained.
    """

    is_next: bool


_known = WeakTensorKeyDictionary()


def read_layout(packed: Tensor, tags: Tensor) -> RunLayout | WindowLayout:
    """Finds the runs in packed observations.

    Several encoders read the same observations: what was found is kept as long as they live.

    Args:
        packed: The observations, (B, K, P).
        tags: Their tags, (B, K).

    Returns:
        The layout of the runs, or of windows.

    Raises:
        ValueError: If rows were dropped, or are in another order.
    """
    version, layout = _known.get(packed, (None, None))
    if version != packed._version:
        host = tags.detach().cpu().numpy().astype(np.int64)
        is_next = not ((host > 0) & (host & _NEXT == 0)).any()
        if (host & _KIND == _OUTPUT).any():
            layout = _read(host, packed.device, is_next)
        else:
            layout = WindowLayout(is_next)
        _known[packed] = (packed._version, layout)
    return layout


def _read(tags: np.ndarray, device: torch.device, is_next: bool) -> RunLayout:
    row_size = tags.shape[1]
    identity = tags[:, 0] & ~(_KIND | _FIRST)  # row and stream
    is_new = np.append(True, identity[1:] != identity[:-1])
    unique = tags[is_new]
    _check_rows(unique)
    kind = unique & _KIND
    is_first = (unique & _FIRST > 0)[kind > 0]
    is_output = kind[kind > 0] == _OUTPUT
    run = is_first.cumsum() - 1
    num_outputs = np.bincount(run, is_output).astype(np.int64)
    num_context = np.bincount(run).astype(np.int64) - num_outputs
    context, outputs = int(num_context.max()), int(num_outputs.max())
    layout = PackedLayout(
        context - num_context, context + num_outputs, context + outputs, outputs, device
    )
    is_whole = is_new.all()
    tokens = (np.flatnonzero(is_new)[:, None] * row_size + np.arange(row_size))[kind > 0]
    return RunLayout(
        is_next,
        None if is_whole and (kind > 0).all() else layout.send(tokens),
        layout,
        None if is_whole else layout.send(is_new.cumsum() - 1),
    )


def _check_rows(tags: np.ndarray) -> None:
    """Raises unless rows form whole streams, each with an output for every row of it."""
    row = tags[:, 0] // _ROW
    starts = np.flatnonzero(row == 0)
    stream = (row == 0).cumsum() - 1
    is_whole = len(starts) > 0 and starts[0] == 0
    if is_whole:
        outputs = ((tags & _KIND) == _OUTPUT).sum(1)
        is_whole = np.array_equal(row, np.arange(len(row)) - starts[stream])
        is_whole &= np.array_equal(np.bincount(stream, outputs), np.bincount(stream))
    if not is_whole:
        raise ValueError(
            "Rows of replayed runs were dropped, or put into another order (by minibatches, or by "
            "a connector piece or a loss of your own), but the tokens of a run lie in the rows of "
            f"all its transitions: expected whole batches, got rows {row[:8].tolist()}... Use "
            "`use_attention(config, max_seq_len=1)`, which gives each row a window of its own."
        )
