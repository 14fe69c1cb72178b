"""What the tokens of replayed runs are: the last entry of each token, a whole number.

Shapes: B transitions, K tokens in a row, R runs, N tokens in all.
"""

import numpy as np

from rllib_attention.nn.packing import ranges

CONTEXT, OUTPUT, KIND = 1, 2, 3
FIRST = 4  # the first token of a run
NEXT = 8  # a stream of next observations
NEW = 16  # a next observation that is none of its run's observations
ROW = 32  # times the token's row
MAX_ROWS = 2**24 // ROW  # that float32 can count


def stream_tags(
    num_context: np.ndarray,
    num_outputs: np.ndarray,
    row_size: int,
    *,
    ahead: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the tags of a stream of runs.

    Args:
        num_context: Context tokens of each run, (R,).
        num_outputs: Outputs of each run, (R,), in all B.
        row_size: Tokens K in a row, so that all fit into B rows.
        ahead: In a stream of next observations, how many steps they lie behind the observations,
            (R,); else None.

    Returns:
        (B * K,), whole numbers.
    """
    num_rows, size = int(num_outputs.sum()), num_context + num_outputs
    tags = np.repeat(np.arange(num_rows) * ROW, row_size)
    output_of = ranges(num_context, size)
    first = size.cumsum() - size
    tags[: size.sum()] += CONTEXT
    tags[np.repeat(first, num_outputs) + output_of] += OUTPUT - CONTEXT
    tags[first] += FIRST
    if ahead is None:
        return tags
    # A run of nothing but new steps would have a gap before it.
    num_new = np.where(ahead < size, ahead, 0)
    tags[ranges(first + size - num_new, first + size)] += NEW
    return tags + NEXT


def window_tags(is_real: np.ndarray, *, is_next: bool) -> np.ndarray:
    """Returns the tags of windows that each row has for itself: 0 in padding.

    Args:
        is_real: Which tokens are real, any shape.
        is_next: Whether these are next observations.
    """
    return is_real * (CONTEXT + NEXT * is_next)
