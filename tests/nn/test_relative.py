"""Learned scores of the distance against their formulas, pair by pair."""

import copy
import math
import re

import numpy as np
import pytest
import torch

from rllib_attention.nn import RelativeBias, RelativePosition

CPU = torch.device("cpu")
HEADS, SIZE, WINDOW = 2, 3, 5


def relative_bias(window=WINDOW):
    torch.manual_seed(0)
    return RelativeBias(HEADS, SIZE, window)


def distance_score(position, head, distance):
    """V r of one distance, wave by wave."""
    slowest, fastest = math.pi / 4 / max(position.sinusoids.shape[0], 2), math.pi / 2
    total = 0.0
    for wave in range(8):
        frequency = fastest * (slowest / fastest) ** (wave / 7)
        for part, function in ((wave, math.sin), (8 + wave, math.cos)):
            weight = position.project.weight[head * SIZE : (head + 1) * SIZE, part]
            total += position.position_bias[head, 0] @ weight * function(frequency * distance)
    return total


def test_relative_rows_are_a_map_of_sinusoids():
    torch.manual_seed(0)
    position = RelativePosition(dim=4, num_heads=HEADS, head_size=SIZE, window=WINDOW)
    rows = position.rows()
    assert rows.shape == (HEADS, 3, 5)
    for distance in range(5):
        phases = [distance, distance / 100]
        wave = torch.tensor([*map(math.sin, phases), *map(math.cos, phases)])
        expected = (position.project.weight @ wave).view(HEADS, 3)
        torch.testing.assert_close(rows[..., distance], expected, atol=1e-6, rtol=1e-5)


def test_relative_scores_look_distances_up():
    torch.manual_seed(0)
    position = RelativePosition(dim=4, num_heads=HEADS, head_size=SIZE, window=WINDOW)
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


def test_relative_bias_of_single_steps():
    position = relative_bias()
    rows, distance = position.rows(), torch.tensor([[[[0, 4, 2]]], [[[3, 2, 1]]]])
    bias = position.bias(None, distance, rows)
    assert bias.shape == (2, HEADS, 1, 3)
    for row in range(2):
        for h in range(HEADS):
            for k in range(3):
                expected = distance_score(position, h, int(distance[row, 0, 0, k]))
                torch.testing.assert_close(bias[row, h, 0, k], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("clock", [0, 2040, 10**9])
@pytest.mark.parametrize("as_pairs", [False, True])
def test_products_of_waves_are_the_scores(clock, as_pairs):
    """Appended numbers add u k + v r of the distance to q k, at any clock."""
    position = relative_bias()
    x = torch.randn(WINDOW, 2 * HEADS, SIZE)
    angles = position.angles(np.arange(WINDOW) + clock, CPU)
    out = position.rotate(x, torch.view_as_real(angles) if as_pairs else angles)
    apart = torch.cat(
        [position.rotate(x[:, part], angles, part) for part in (slice(HEADS), slice(HEADS, None))],
        dim=1,
    )
    torch.testing.assert_close(apart, out)
    for h in range(HEADS):
        for t in range(WINDOW):
            for s in range(t + 1):
                query = x[t, h] + position.content_bias[h, 0]
                expected = query @ x[s, HEADS + h] + distance_score(position, h, t - s)
                score = out[t, h] @ out[s, HEADS + h]
                torch.testing.assert_close(score, expected, atol=1e-5, rtol=1e-5)


def test_cached_keys_have_no_waves():
    position, x = relative_bias(), torch.randn(4, 2 * HEADS, SIZE)
    plain = x.clone()
    position.rotate_(x, None)
    torch.testing.assert_close(x[:, :HEADS], plain[:, :HEADS] + position.content_bias.squeeze(1))
    assert torch.equal(x[:, HEADS:], plain[:, HEADS:])
    query = torch.randn(4, HEADS, 1, SIZE)
    assert position.split_query(query) == (query, None)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_bias_of_the_shortest_windows(window):
    position = relative_bias(window)
    for h in range(HEADS):
        expected = torch.stack([distance_score(position, h, d) for d in range(window)])
        torch.testing.assert_close(position.rows()[h, 0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_are_kept(dtype):
    """Those of a model in low precision, and of autocast's queries and keys."""
    position = relative_bias()
    angles = position.angles(np.arange(WINDOW), CPU)
    x = torch.randn(WINDOW, 2 * HEADS, SIZE).to(dtype)
    expected = position.rotate(x.float(), angles)
    for scheme in (position, copy.deepcopy(position).to(dtype)):
        out = scheme.rotate(x, angles)
        assert out.dtype == dtype
        tolerance = 1e-6 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: RelativePosition(4, 2, 2, 0),
            "`window` must be an integer of at least 1, got 0.",
        ),
        (
            lambda: RelativePosition(4, 0, 2, 1),
            "`num_heads` must be an integer of at least 1, got 0.",
        ),
        (lambda: RelativeBias(2, 0, 1), "`head_size` must be an integer of at least 1, got 0."),
    ],
)
def test_wrong_sizes_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
