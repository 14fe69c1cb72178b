"""Outcomes of curves, and the profile over tasks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import trim_mean

from tests.benchmarks.learning.report import read_runs, render
from tests.benchmarks.learning.scores import bootstrap, interquartile_mean, outcome


def curve(values: list[float]) -> list[dict[str, float]]:
    return [{"steps": 10 * (i + 1), "cpu": i + 0.5, "value": v} for i, v in enumerate(values)]


def test_a_fall_shows_between_best_and_last() -> None:
    found = outcome(curve([math.nan, 0.0, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0]), budget=80, bar=0.8)
    assert found["best"] == pytest.approx(0.9)
    assert found["last"] == pytest.approx(0.0)
    assert (found["steps"], found["cpu"]) == (50, 4.5)
    assert found["marks"][0.25] == pytest.approx(0.0)
    assert found["marks"][0.5] == pytest.approx(0.6)  # three rows: 0, 0.9, 0.9


def test_a_bar_that_is_missed_costs_infinity() -> None:
    found = outcome(curve([0.1, 0.2]), budget=20, bar=0.8)
    assert math.isinf(found["steps"])
    assert math.isinf(found["cpu"])


@pytest.mark.parametrize("size", [1, 4, 7, 24])
def test_the_interquartile_mean_is_a_trimmed_one(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size)
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25))


def test_the_interval_holds_the_mean_and_narrows_with_seeds() -> None:
    rng = np.random.default_rng(0)
    few = bootstrap([rng.normal(size=3) for _ in range(4)])
    many = bootstrap([rng.normal(size=30) for _ in range(4)])
    assert few[1] <= few[0] <= few[2]
    assert many[2] - many[1] < few[2] - few[1]


def test_a_task_without_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one score for each task"):
        bootstrap([[0.5], []])


def test_the_report_names_every_run(tmp_path: Path) -> None:
    for label, value in (("attention", 0.9), ("lstm", 0.2)):
        for seed in (0, 1):
            run = {"task": "t_maze_10", "label": label, "seed": seed, "budget": 30}
            record = {"run": run, "curve": curve([0.0, value, value])}
            (tmp_path / f"{label}-{seed}.json").write_text(json.dumps(record))
    report = render(read_runs(tmp_path))
    assert "## t_maze_10 (confirmation), 30 env steps" in report
    [attention] = [line for line in report.splitlines() if line.startswith("| attention | 2 |")]
    assert "0.6 ± 0" in attention
    assert "| lstm | 1 | 0.13 (0.13 to 0.13) |" in report
