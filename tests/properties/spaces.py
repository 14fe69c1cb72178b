"""Random spaces: what RLlib can tokenize, or flatten, and what it has a distribution for."""

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

SIZES = st.integers(1, 3)
# Of bytes: with 255 tokens are in the hundreds, and float32 rounds them more coarsely.
MOST = 3


def boxes(max_dims, dtypes=(np.float32, np.float64, np.uint8)):
    """Bounded boxes of up to `max_dims` dimensions."""
    shapes = st.lists(SIZES, min_size=1, max_size=max_dims).map(tuple)
    return st.builds(_box, shapes, st.sampled_from(dtypes))


def _box(shape, dtype):
    low, high = (0, MOST) if dtype is np.uint8 else (-1.0, 1.0)
    return spaces.Box(low, high, shape, dtype)


def nested(leaves):
    """Leaves, and Dicts and Tuples of them, of each other too."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple)
            | st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(spaces.Dict)
        ),
        max_leaves=4,
    )


DISCRETE = st.builds(spaces.Discrete, st.integers(2, 4))
MULTI_DISCRETE = st.lists(st.integers(2, 3), min_size=1, max_size=3).map(spaces.MultiDiscrete)
MULTI_BINARY = st.builds(spaces.MultiBinary, SIZES)
IMAGES = st.builds(lambda side: spaces.Box(0, MOST, (side, side, 3), np.uint8), st.integers(16, 24))

VECTORS = boxes(1)
FLATTENED = nested(DISCRETE | MULTI_DISCRETE | MULTI_BINARY | boxes(2))

BOX_ACTIONS = boxes(1, dtypes=[np.float32])
ANY_ACTIONS = nested(DISCRETE | MULTI_DISCRETE | BOX_ACTIONS)
