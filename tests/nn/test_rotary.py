"""Rotary positions against their formulas, pair by pair."""

import math
import re

import numpy as np
import pytest
import torch

from rllib_attention.nn import RotaryPosition

CPU = torch.device("cpu")
HEADS, SIZE = 2, 6


def heads(steps=5):
    torch.manual_seed(0)
    return torch.randn(steps, HEADS, SIZE)


@pytest.mark.parametrize("clock", [0, 2000, 2046, 123_456_789])
def test_rotary_turns_each_pair(clock):
    """Pair i of step t turns by t / 10000^(2i/E); 2,048 steps come from a table."""
    position, x = RotaryPosition(SIZE), heads()
    steps = np.arange(5) + clock
    out = position.rotate(x, position.angles(steps, CPU))
    for n, step in enumerate(steps.tolist()):
        for i in range(SIZE // 2):
            angle = step / 10_000 ** (2 * i / SIZE)
            a, b = x[n, :, 2 * i], x[n, :, 2 * i + 1]
            turned = (
                a * math.cos(angle) - b * math.sin(angle),
                a * math.sin(angle) + b * math.cos(angle),
            )
            torch.testing.assert_close(out[n, :, 2 * i], turned[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(out[n, :, 2 * i + 1], turned[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_in_place(dtype):
    position, x = RotaryPosition(SIZE), heads().to(dtype)
    angles = position.angles(np.arange(5), CPU)
    expected = position.rotate(x, angles)
    assert expected.dtype == dtype
    # As in a rollout: the heads of queries and keys are a part of a tensor.
    both = torch.cat((x, x), dim=1)
    position.rotate_(both[:, :HEADS], angles)
    torch.testing.assert_close(both[:, :HEADS], expected, atol=1e-6, rtol=0)
    assert torch.equal(both[:, HEADS:], x)


@pytest.mark.parametrize("clock", [0, 100_000, 10**9])
def test_rotary_scores_depend_on_the_distance_only(clock):
    position, (query, key) = RotaryPosition(SIZE), heads(2)

    def score(shift):
        steps = np.array([7, 3]) + shift
        pair = position.rotate(torch.stack((query, key)), position.angles(steps, CPU))
        return (pair[0] * pair[1]).sum(-1)

    torch.testing.assert_close(score(clock), score(0), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(score(0), (query * key).sum(-1), atol=1e-2)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (5, "`head_size` must be even for rotary positions, got 5."),
        (0, "`head_size` must be an integer of at least 2, got 0."),
    ],
)
def test_wrong_sizes_are_named(size, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RotaryPosition(size)
