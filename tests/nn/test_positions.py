"""Position schemes against their formulas, pair by pair."""

import math
import re

import numpy as np
import pytest
import torch

from rllib_attention.nn import NoPosition, RelativePosition, RotaryPosition
from rllib_attention.nn.positions import make_position

CPU = torch.device("cpu")
HEADS, SIZE = 2, 6


def heads(steps=5):
    torch.manual_seed(0)
    return torch.randn(steps, HEADS, SIZE)


def test_no_position_changes_nothing():
    position, x = NoPosition(), heads()
    assert position.angles(np.arange(5), CPU) is None
    assert position.rotate(x, None) is x
    query, where = position.split_query(x)
    assert query is x
    assert where is None
    assert position.rows() is None
    assert position.fixed_bias(torch.zeros(1, 1)) is None
    before = x.clone()
    position.rotate_(x, None)
    assert torch.equal(x, before)
    with pytest.raises(NotImplementedError, match="NoPosition has no position bias"):
        position.bias(x, torch.zeros(1, 1), None)


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


def test_relative_rows_are_a_map_of_sinusoids():
    torch.manual_seed(0)
    position = RelativePosition(dim=4, num_heads=HEADS, head_size=3, window=5)
    rows = position.rows()
    assert rows.shape == (HEADS, 3, 5)
    for distance in range(5):
        phases = [distance, distance / 100]
        wave = torch.tensor([*map(math.sin, phases), *map(math.cos, phases)])
        expected = (position.project.weight @ wave).view(HEADS, 3)
        torch.testing.assert_close(rows[..., distance], expected, atol=1e-6, rtol=1e-5)


def test_relative_bias_looks_distances_up():
    torch.manual_seed(0)
    position = RelativePosition(dim=4, num_heads=HEADS, head_size=3, window=5)
    content, where = position.split_query(torch.randn(HEADS, 2, 3))
    torch.testing.assert_close(
        content - where, (position.content_bias - position.position_bias).expand_as(where)
    )
    distance, rows = torch.tensor([[0, 4, 2], [-3, 9, 1]]), position.rows()
    bias = position.bias(where, distance, rows)
    for h in range(HEADS):
        for q in range(2):
            for k in range(3):
                nearest = min(max(int(distance[q, k]), 0), 4)
                expected = where[h, q] @ rows[h, :, nearest]
                torch.testing.assert_close(bias[h, q, k], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("none", NoPosition), ("rotary", RotaryPosition), ("relative", RelativePosition)],
)
def test_names(name, kind):
    assert type(make_position(name, dim=4, num_heads=2, head_size=2, window=3)) is kind


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: RotaryPosition(5),
            "`head_size` must be even for rotary positions, got 5.",
        ),
        (lambda: RotaryPosition(0), "`head_size` must be an integer of at least 2, got 0."),
        (
            lambda: RelativePosition(4, 2, 2, 0),
            "`window` must be an integer of at least 1, got 0.",
        ),
        (
            lambda: RelativePosition(4, 0, 2, 1),
            "`num_heads` must be an integer of at least 1, got 0.",
        ),
        (
            lambda: make_position("absolute", dim=4, num_heads=2, head_size=2, window=3),
            "`position` must be one of ('recency', 'rotary', 'relative', 'none'), got 'absolute'.",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
