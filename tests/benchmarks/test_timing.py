"""Spreads, ratios within rounds, and turns that are fair."""

import pytest

from tests.benchmarks.timing import interleave, ratio, spread


def test_spread_reads_as_median_low_high():
    assert spread([3.0, 1.0, 2.0]).text(1, scale=10) == "20.0 (10.0–30.0)"


def test_ratio_is_taken_within_rounds():
    """Both slow down tenfold in the second round: the ratio does not notice."""
    assert ratio([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == (0.5, 0.5, 0.5)


def test_ratio_refuses_series_of_different_rounds():
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_interleave_takes_turns_and_drops_the_first_round():
    calls = []

    def turn(name):
        calls.append(name)
        return {"count": float(calls.count(name))}

    figures = interleave({name: lambda name=name: turn(name) for name in "ab"}, rounds=2)
    assert "".join(calls) == "ba" + "ab" + "ba"
    assert figures == {"a": {"count": [2.0, 3.0]}, "b": {"count": [2.0, 3.0]}}
