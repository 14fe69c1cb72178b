"""Runs of consecutive transitions in one tensor with a row for each transition.

The T transitions of a run share their context: C + T tokens serve T outputs. All tokens of a
batch's runs form one stream, which is chopped into as many rows as there are transitions:

    runs (T=4)    c c c 1 2 3 4   c 5 6 7   8       c: context, numbers: outputs
    rows (B=8)    c c | c 1 | 2 3 | 4 c | 5 6 | 7 8 | . . | . .

Row i and output i belong together in every other column of the batch, though not in this tensor.
A token's tag says what it is, where runs begin, and which row it lies in, so that rows that were
repeated (CQL) or put behind those of another stream (DQN) still make sense, and all else is an
error. Where observations and next ones are in one tensor, their runs are joined (`joined_runs.py`).
Shapes: B transitions, K tokens in a row, R runs, N tokens in all.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rllib_attention.encoder.host_tags import known_tags
from rllib_attention.encoder.joined_runs import join
from rllib_attention.encoder.run_tags import FIRST, KIND, NEW, NEXT, OUTPUT, ROW
from rllib_attention.encoder.tensor_memo import TensorMemo
from rllib_attention.nn import PackedLayout


@dataclass(frozen=True)
class RunLayout:
    """Where the runs of a tensor are.

    Attributes:
        is_next: Whether all of them are next observations, of which nothing is trained.
        tokens: Index of each real token among all, rows repeated or not, (N,); None for all.
        packed: The layout of the runs' tokens, one row for each run.
        outputs: Which output belongs to each row, None if each has its own, in order.
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


_layouts = TensorMemo()


def read_layout(packed: Tensor, tags: Tensor) -> RunLayout | WindowLayout:
    """Finds the runs in packed observations.

    Several encoders read the same observations: what was found is kept as long as they live. Tags
    that are not known to the host (`host_tags.py`) are read from the device, which is waited for.

    Args:
        packed: The observations, (B, K, P).
        tags: Their tags, (B, K).

    Returns:
        The layout of the runs, or of windows.

    Raises:
        ValueError: If rows were dropped, or are in another order.
    """
    layout = _layouts.get(packed)
    if layout is None:
        known = known_tags(packed)
        host = tags.detach().cpu().numpy().astype(np.int64) if known is None else known.tags
        # What one batch holds of a step is the same, now and later.
        is_same = known is not None and len(set(known.origins)) == 1
        layout = _find(packed, host, is_same)
        _layouts.put(packed, layout)
    return layout


def _find(packed: Tensor, host: np.ndarray, is_same: bool) -> RunLayout | WindowLayout:
    is_next = not ((host > 0) & (host & NEXT == 0)).any()
    if not (host & KIND == OUTPUT).any():
        return WindowLayout(is_next)
    joined = join(host, packed, is_same=is_same)
    return _read(host, packed.device, is_next) if joined is None else RunLayout(False, *joined)


def _read(tags: np.ndarray, device: torch.device, is_next: bool) -> RunLayout:
    row_size = tags.shape[1]
    identity = tags[:, 0] & ~(KIND | FIRST | NEW)  # row and stream
    is_new = np.append(True, identity[1:] != identity[:-1])
    unique = tags[is_new]
    _check_rows(unique)
    kind = unique & KIND
    is_first = (unique & FIRST > 0)[kind > 0]
    is_output = kind[kind > 0] == OUTPUT
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
    row = tags[:, 0] // ROW
    starts = np.flatnonzero(row == 0)
    stream = (row == 0).cumsum() - 1
    is_whole = len(starts) > 0 and starts[0] == 0
    if is_whole:
        outputs = ((tags & KIND) == OUTPUT).sum(1)
        is_whole = np.array_equal(row, np.arange(len(row)) - starts[stream])
        is_whole &= np.array_equal(np.bincount(stream, outputs), np.bincount(stream))
    if not is_whole:
        raise ValueError(
            "Rows of replayed runs were dropped, or put into another order (by minibatches, or by "
            "a connector piece or a loss of your own), but the tokens of a run lie in the rows of "
            f"all its transitions: expected whole batches, got rows {row[:8].tolist()}... Use "
            "`use_attention(config, max_seq_len=1)`, which gives each row a window of its own."
        )
