"""Pictures of records."""

import numpy as np
import pytest

from rllib_attention.inspection.plot import average_steps, plot_attention
from tests.inspection.records import random_record


@pytest.fixture
def figures(monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure))
    return drawn


def axes_of(figure, label):
    return [axis for axis in figure.axes if axis.get_ylabel() == label]


def test_a_picture_is_written(tmp_path):
    record = random_record(6, strides=(1,), num_heads=1)
    path = plot_attention(record, tmp_path / "new" / "map.png")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("length", "options"), [(1, {}), (20, {"max_steps": 9, "max_distance": 1}), (3_000, {})]
)
def test_what_is_drawn(length, options, tmp_path, figures):
    record = random_record(length, window=22, strides=(1, 22))
    plot_attention(record, tmp_path / "map.png", **options)
    [figure] = figures
    maps = axes_of(figure, "steps back")
    assert len(maps) == 2 * 3  # two heads and their mean
    edges = record.lag_edges()
    if options:
        edges = edges[:3]
    for axis, (layer, head) in zip(
        maps, [(a, b) for a in (0, 1) for b in (0, 1, None)], strict=True
    ):
        expected = record.by_lag(edges, layer=layer, head=head)[: options.get("max_steps")]
        [image] = axis.get_images()
        np.testing.assert_allclose(image.get_array(), average_steps(expected).T, rtol=1e-5)
        assert image.get_array().shape[1] <= 600
    [rewards] = axes_of(figure, "reward")
    shown = record.rewards[: options.get("max_steps")]
    np.testing.assert_array_equal(rewards.get_lines()[0].get_ydata(), shown)
    # Ticks stand at whole steps, and rows are named by their lags.
    for axis in figure.axes:
        if axis.get_xlabel():
            np.testing.assert_array_equal(axis.get_xticks(), np.round(axis.get_xticks()))
    for axis in maps:
        labels = [int(label.get_text()) for label in axis.get_yticklabels()]
        assert labels == [edges[int(row)] for row in axis.get_yticks()]


def test_steps_are_averaged():
    np.testing.assert_allclose(average_steps(np.arange(7.0), 3), [1.0, 4.0, 6.0])
    np.testing.assert_allclose(average_steps(np.arange(7.0), 7), np.arange(7.0))
