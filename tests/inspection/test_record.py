"""Attention records: numbers worked out by hand, and by dense matrices."""

from itertools import pairwise

import numpy as np
import pytest

from rllib_attention.inspection import AttentionRecord
from tests.inspection.records import make_record, random_record


def hand_made():
    """Two layers, one head, three steps: the second layer looks one step back."""
    first = [[1, 0], [1, 0], [1, 0]]
    second = [[1.0, 0.0], [0.1, 0.9], [0.3, 0.7]]
    return make_record([[first], [second]])


def dense(record):
    """The weights as a (L, H, T, past + T) matrix, entry by entry."""
    out = np.zeros((*record.weights.shape[:3], record.num_past + len(record)))
    for layer, head, t, k in np.ndindex(record.weights.shape):
        place = record.num_past + t - k * record.strides[layer]
        if place >= 0:
            out[layer, head, t, place] = record.weights[layer, head, t, k]
    return out


def test_share_is_the_mean_of_a_diagonal():
    record = hand_made()
    assert record.share(1, layer=1) == pytest.approx((0.9 + 0.7) / 2)
    assert record.share(1) == pytest.approx((0.9 + 0.7) / 4)
    assert record.share(0, layer=1, head=0) == pytest.approx((1.0 + 0.1 + 0.3) / 3)
    assert record.sharpest_head(1) == (1, 0)


@pytest.mark.parametrize("num_past", [0, 4])
@pytest.mark.parametrize("strides", [(1, 1), (1, 3)])
def test_numbers_are_those_of_the_dense_matrix(strides, num_past):
    record = random_record(9, strides=strides, num_past=num_past)
    matrix = dense(record)
    np.testing.assert_allclose(matrix.sum(-1), 1.0, rtol=1e-6)
    reach = num_past + 9
    lags = num_past + np.arange(9)[:, None] - np.arange(reach)
    for layer, head in ((None, None), (0, None), (1, 1)):
        part = matrix[slice(None) if layer is None else slice(layer, layer + 1)]
        part = part if head is None else part[:, head : head + 1]
        for distance in range(reach):
            expected = part[..., lags == distance].mean()
            share = record.share(distance, layer=layer, head=head)
            assert share == pytest.approx(expected, abs=1e-6)
        logs = np.log(part, where=part > 0, out=np.zeros_like(part))
        expected = -(part * logs).sum(-1).mean()
        assert record.entropy(layer=layer, head=head) == pytest.approx(expected, abs=1e-6)
        expected = (part * lags).sum(-1).mean()
        assert record.mean_lag(layer=layer, head=head) == pytest.approx(expected, abs=1e-5)
    for layer in (0, 1):
        edges = np.array([0, 1, 3, 8, 20])
        ranges = [(lags >= a) & (lags < b) for a, b in pairwise(edges)]
        expected = np.stack([(matrix[layer, 1] * part).sum(-1) for part in ranges], -1)
        np.testing.assert_allclose(record.by_lag(edges, layer=layer, head=1), expected, atol=1e-6)
    assert (record.by_lag(edges, layer=1) * 2).sum() == pytest.approx(2 * 9, rel=1e-5)


def test_steps_lags_and_context():
    record = random_record(5, window=3, strides=(1, 4))
    np.testing.assert_array_equal(record.lags(1), [0, 4, 8])
    np.testing.assert_array_equal(record.steps(1)[3], [3, -1, -5])
    assert record.context_len == 2 * (1 + 4)
    assert record.context_fill == pytest.approx((0 + 1 + 2 + 3 + 4) / 5 / 10)
    assert random_record(5, num_past=100).context_fill == 1.0
    assert random_record(5, window=1).context_fill == 1.0
    np.testing.assert_array_equal(random_record(3, num_past=7).steps(0)[:, 0], [7, 8, 9])


def test_lags_of_a_long_context_are_taken_together():
    assert random_record(5, window=4).lag_edges().tolist() == [0, 1, 2, 3, 4]
    assert random_record(3, window=4).lag_edges().tolist() == [0, 1, 2, 3]
    record = random_record(12_000, window=22, strides=(1, 22, 484), num_heads=1)
    edges = record.lag_edges()
    assert len(edges) <= 65
    assert edges[:3].tolist() == [0, 1, 2]
    assert edges[-1] == 21 * 484 + 1
    assert (np.diff(edges) > 0).all()
    np.testing.assert_allclose(record.by_lag(edges, layer=2).sum(1), 1.0, rtol=1e-5)


def test_profile_stops_where_the_episode_is_too_short():
    record = random_record(7, window=4, strides=(1, 3))
    lags, weights = record.lag_profile(layer=1)
    assert lags.tolist() == [0, 3, 6]
    assert weights.tolist() == [record.share(lag, layer=1) for lag in (0, 3, 6)]


@pytest.mark.parametrize("distance", [-1, 3])
def test_share_of_an_impossible_distance(distance):
    with pytest.raises(ValueError, match=f"between 0 and 2 .* got {distance}"):
        hand_made().share(distance)


def test_saved_and_loaded(tmp_path):
    record = random_record(5, strides=(1, 3), num_past=2)
    record.save(tmp_path / "record")
    loaded = AttentionRecord.load(tmp_path / "record")
    for name, value in vars(record).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
        assert type(getattr(loaded, name)) is type(value)
    np.savez(tmp_path / "other.npz", weights=record.weights)
    with pytest.raises(ValueError, match=r"expects a file that `record.save.* without .'actions'"):
        AttentionRecord.load(tmp_path / "other.npz")
