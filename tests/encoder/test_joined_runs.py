"""Observations and next ones in one tensor: outputs and gradients of windows, tokens once."""

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from rllib_attention.encoder.packed_window import pack_tokens
from rllib_attention.encoder.run_tags import stream_tags, window_tags
from tests.encoder.test_packed_runs import (
    CONTEXT,
    NUM_FEATURES,
    OBS_SIZE,
    check_same,
    make_encoder,
)

# Past steps, outputs and steps ahead of each run.
SHAPES = {
    "full": ([8, 8, 8], [4, 4, 4], [1, 1, 1]),
    "ragged": ([0, 8, 3, 0, 7], [1, 7, 4, 6, 2], [1, 1, 1, 1, 1]),
    "several steps": ([0, 20, 3, 1], [5, 4, 2, 1], [3, 3, 2, 1]),
    "longer steps than runs": ([8, 3], [1, 2], [6, 4]),
    "steps beyond the context": ([8, 20], [3, 3], [9, 9]),
    "one transition": ([0], [1], [1]),
}
# What cannot be joined, since nothing is shared by some run.
APART = {
    "a gap": ([0, 8], [1, 3], [1, 12]),
}


def make_pair(past, length, ahead, dtype=np.float32):
    """Returns streams of runs and of their next observations, and the same as windows."""
    rng = np.random.default_rng(0)
    past, length, ahead = map(np.array, (past, length, ahead))
    episodes = [
        (
            rng.integers(0, 9, (size, OBS_SIZE)).astype(dtype),
            rng.normal(size=(size, NUM_FEATURES)).astype(np.float32),
        )
        for size in past + length + ahead
    ]
    num_rows, streams, windows = int(length.sum()), [], []
    row_size = max(2 * CONTEXT, 1) + int((length + ahead).max())
    for is_next in (False, True):
        first_output = past + is_next * ahead
        context = np.minimum(first_output, CONTEXT)
        begin, end = first_output - context, first_output + length
        steps = [(e, s) for e in range(len(past)) for s in range(begin[e], end[e])]
        tags = stream_tags(context, length, row_size, ahead=ahead if is_next else None)
        steps += [steps[0]] * (len(tags) - len(steps))
        obs, features = (np.stack([episodes[e][i][s] for e, s in steps]) for i in (0, 1))
        streams.append(pack_tokens(obs, features, tags).reshape(num_rows, row_size, -1))
        for e, (obs, features) in enumerate(episodes):
            for last in range(first_output[e], end[e]):
                seen = np.arange(last - CONTEXT, last + 1)
                tags = window_tags(seen >= 0, is_next=is_next)
                window = pack_tokens(obs[seen.clip(0)], features[seen.clip(0)], tags)
                window[seen < 0] = 0
                windows.append(window)
    return torch.from_numpy(np.concatenate(streams)), torch.from_numpy(np.stack(windows))


def counted_tokens(encoder):
    counts = []
    encoder.embedding.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    return counts


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("name", SHAPES)
def test_joined_runs_equal_windows(name, dtype):
    encoder = make_encoder(dtype)
    counts = counted_tokens(encoder)
    check_same(encoder, *make_pair(*SHAPES[name], dtype=dtype))
    past, length, ahead = map(np.array, SHAPES[name])
    assert counts[0] == (np.minimum(past, CONTEXT) + length + ahead).sum()


def test_dilated_runs_are_joined():
    encoder = make_encoder(window=3, dilation=3)
    counts = counted_tokens(encoder)
    check_same(encoder, *make_pair(*SHAPES["several steps"]))
    assert counts[0] == (0 + 8 + 3 + 1) + (5 + 4 + 2 + 1) + (3 + 3 + 2 + 1)


def test_runs_with_a_gap_between_are_not_joined():
    check_same(make_encoder(), *make_pair(*APART["a gap"]))


@pytest.mark.parametrize("part", ["observation", "features"])
def test_streams_of_different_batches_are_not_joined(part):
    """They may have the same shape; what counts is that the steps are the same."""
    encoder, (stream, windows) = make_encoder(), make_pair(*SHAPES["full"])
    entry = 0 if part == "observation" else OBS_SIZE
    half = len(stream) // 2
    stream[half:, :, entry] *= -1
    windows[half:, :, entry] *= -1
    counts = counted_tokens(encoder)
    check_same(encoder, stream, windows)
    assert counts[0] == 2 * 3 * (8 + 4)


def test_repeated_rows_are_not_joined():
    stream, windows = (x.repeat_interleave(3, dim=0) for x in make_pair(*SHAPES["ragged"]))
    check_same(make_encoder(), stream, windows)


@pytest.mark.parametrize("damage", [lambda rows: rows[:-1], lambda rows: rows.flip(0)])
def test_rows_that_were_dropped_or_moved_are_an_error(damage):
    stream, _ = make_pair(*SHAPES["full"])
    with pytest.raises(ValueError, match="dropped, or put into another"):
        make_encoder()({Columns.OBS: damage(stream)})
