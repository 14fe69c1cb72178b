"""Tags that the host knows follow observations as long as they describe them, and no longer."""

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.utils.torch_utils import convert_to_torch_tensor
from torch import Tensor

from rllib_attention.encoder.host_tags import (
    COLUMN,
    TaggedRows,
    known_tags,
    tag_batch,
    tags_column,
)
from rllib_attention.encoder.packed_window import tags_of
from tests.encoder.test_joined_runs import SHAPES, make_pair
from tests.encoder.test_packed_runs import CLOSE, make_encoder
from tests.waits import Waits


def make_batch(name="ragged", dtype=np.float32):
    """Returns observations and next ones as a learner has them, and the same as windows."""
    stream, windows = make_pair(*SHAPES[name], dtype=dtype)
    arrays = dict(
        zip(
            (Columns.OBS, Columns.NEXT_OBS),
            stream.numpy().reshape(2, -1, *stream.shape[1:]),
            strict=True,
        )
    )
    batch = {**arrays, COLUMN: {key: tags_column(tags_of(x)) for key, x in arrays.items()}}
    return convert_to_torch_tensor(batch), windows


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_layouts_are_found_without_a_wait(dtype):
    """Of observations, of next ones, and of both behind one another as in DQN."""
    batch, windows = make_batch(dtype=dtype)
    half = len(windows) // 2
    encoder = make_encoder(dtype)
    expected = encoder({Columns.OBS: windows})[ENCODER_OUT]
    tag_batch(batch)
    with Waits() as waits:
        outputs = [
            encoder({Columns.OBS: rows})[ENCODER_OUT]
            for rows in (
                batch[Columns.OBS],
                batch[Columns.NEXT_OBS],
                torch.cat([batch[Columns.OBS], batch[Columns.NEXT_OBS]], dim=0),
            )
        ]
    assert waits.of("rllib_attention") == []
    for out, wanted in zip(outputs, (expected[:half], expected[half:], expected), strict=True):
        torch.testing.assert_close(out, wanted, **CLOSE)


def test_without_tags_the_device_is_read():
    batch, _ = make_batch()
    with Waits() as waits:
        make_encoder()({Columns.OBS: batch[Columns.OBS]})
    assert waits.of("rllib_attention")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows + 0,
        lambda rows: rows[1:],
        lambda rows: rows.flip(0),
        lambda rows: rows.repeat_interleave(2, dim=0),
        lambda rows: torch.cat([rows, rows], dim=1),
        lambda rows: torch.cat([rows, rows + 0]),
        lambda rows: torch.stack([rows, rows]),
        lambda rows: rows.mul_(2),
    ],
)
def test_tags_do_not_outlive_what_they_describe(change):
    batch, _ = make_batch()
    tag_batch(batch)
    rows = batch[Columns.OBS]
    assert known_tags(rows) is not None
    assert known_tags(change(rows)) is None


def test_a_changed_part_unties_the_whole():
    batch, _ = make_batch()
    tag_batch(batch)
    batch[Columns.NEXT_OBS].mul_(2)
    assert known_tags(torch.cat([batch[Columns.OBS], batch[Columns.NEXT_OBS]])) is None


def test_streams_of_different_batches_are_compared():
    """Their steps may differ, so that they must not be joined unseen."""
    batches = [make_batch("full") for _ in range(2)]
    for batch, _ in batches:
        tag_batch(batch)
    (first, windows), (second, other) = batches
    half = len(windows) // 2
    with torch.no_grad():
        second[Columns.NEXT_OBS].as_subclass(Tensor)[..., 0] *= -1
        tag_batch(second)  # the column is still right
        other[half:, :, 0] *= -1
    both = torch.cat([first[Columns.OBS], second[Columns.NEXT_OBS]])
    assert len(set(known_tags(both).origins)) == 2
    encoder = make_encoder()
    out = encoder({Columns.OBS: both})[ENCODER_OUT]
    expected = encoder({Columns.OBS: torch.cat((windows[:half], other[half:]))})[ENCODER_OUT]
    torch.testing.assert_close(out, expected, **CLOSE)


def test_batches_without_tags_stay_as_they_are():
    obs = torch.zeros(3, 2, 6)
    batch = {Columns.OBS: obs}
    tag_batch(batch)
    assert batch == {Columns.OBS: obs}
    assert not isinstance(batch[Columns.OBS], TaggedRows)
