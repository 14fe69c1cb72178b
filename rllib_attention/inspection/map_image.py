"""A small picture of a record, without a drawing library. Shapes: T steps, S ranges of lags."""

import numpy as np

from rllib_attention.inspection.plot import average_steps
from rllib_attention.inspection.record import AttentionRecord

# From weight 0 to 1, on the way that matplotlib's "magma" takes.
_COLOURS = np.array(
    [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], np.float64
)
_MAX_COLUMNS = 128
_MIN_PIXELS = 64  # of a map's height and width
_GAP = 4
_GREY = 128


def map_image(record: AttentionRecord) -> np.ndarray:
    """Returns maps of step (to the right) and lag (upwards) side by side: layers × heads.

    Args:
        record: The record.

    Returns:
        Colours of 8 bits, (height, width, 3).
    """
    edges = record.lag_edges()
    rows = []
    for layer in range(record.num_layers):
        maps = [
            _one_map(record.by_lag(edges, layer=layer, head=head))
            for head in range(record.num_heads)
        ]
        rows.append(_joined(maps, axis=1))
    return _joined(rows, axis=0)


def _one_map(weights: np.ndarray) -> np.ndarray:
    """(T, S) → (height, width, 3)."""
    # The root, so that weights which are spread over a long window are seen.
    shades = np.sqrt(average_steps(weights, _MAX_COLUMNS)).T[::-1] * (len(_COLOURS) - 1)
    shades = shades.repeat(-(-_MIN_PIXELS // shades.shape[0]), axis=0)
    shades = shades.repeat(-(-_MIN_PIXELS // shades.shape[1]), axis=1)
    channels = [np.interp(shades, range(len(_COLOURS)), part) for part in _COLOURS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _joined(parts: list[np.ndarray], axis: int) -> np.ndarray:
    shape = list(parts[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, _GREY, np.uint8)
    pieces = [piece for part in parts for piece in (gap, part)]
    return np.concatenate(pieces[1:], axis=axis)
