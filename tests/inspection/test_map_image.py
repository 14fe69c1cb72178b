"""Small pictures: each pixel is where it belongs."""

import numpy as np

from rllib_attention.inspection.map_image import map_image
from tests.inspection.records import make_record, random_record

BLACK, BRIGHT = [0, 0, 4], [252, 253, 191]


def test_step_runs_to_the_right_and_lag_upwards():
    """Two heads, two steps: head 0 looks at the current step, head 1 at the one before."""
    image = map_image(make_record([[[[1, 0], [1, 0]], [[1, 0], [0, 1]]]]))
    assert image.dtype == np.uint8
    assert image.shape == (64, 64 + 4 + 64, 3)
    head = image[:, :64]
    assert (head[:32] == BLACK).all()
    assert (head[32:] == BRIGHT).all()
    head = image[:, 68:]
    assert (head[32:, :32] == BRIGHT).all()
    assert (head[:32, :32] == BLACK).all()
    assert (head[:32, 32:] == BRIGHT).all()
    assert (image[:, 64:68] == 128).all()


def test_long_episodes_stay_small():
    image = map_image(random_record(5_000, window=22, strides=(1, 22), num_heads=1))
    assert image.shape[0] <= 2 * 128 + 4
    assert image.shape[1] <= 128
