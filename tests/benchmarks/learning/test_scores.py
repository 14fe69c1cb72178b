"""Outcomes of curves, and the profile over tasks."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import trim_mean

from tests.benchmarks.learning.ledger import (
    Entry,
    entry_of,
    is_known,
    name_of,
    read_ledger,
    write_ledger,
)
from tests.benchmarks.learning.report import render
from tests.benchmarks.learning.run import Run
from tests.benchmarks.learning.scores import bootstrap, interquartile_mean, outcome


def curve(values: list[float]) -> list[dict[str, float]]:
    return [{"steps": 10 * (i + 1), "cpu": i + 0.5, "value": v} for i, v in enumerate(values)]


def test_a_fall_shows_between_best_and_last() -> None:
    found = outcome(curve([math.nan, 0.0, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0]), budget=80, bar=0.8)
    assert found["best"] == pytest.approx(0.9)
    assert found["last"] == pytest.approx(0.0)
    assert (found["steps"], found["cpu"]) == (50, 4.5)
    # At a quarter and at half of the budget; 0.6 is the mean of three rows: 0, 0.9, 0.9.
    assert found["marks"][:2] == pytest.approx([0.0, 0.6])


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


def entry(label: str, seed: int, values: list[float], task: str = "t_maze_10") -> Entry:
    run = {"task": task, "model": label, "label": label, "seed": seed, "budget": 30}
    return entry_of({"run": run, "curve": curve(values)})


def test_the_report_names_every_run() -> None:
    entries = [entry("attention", seed, [0.0, 0.9, 0.9]) for seed in (0, 1)]
    entries += [entry("lstm", seed, [0.0, 0.2, 0.2]) for seed in (0, 1)]
    report = render(entries)
    assert "## t_maze_10 (confirmation), 30 env steps" in report
    assert "| t_maze_10, 30 | 0.6 ± 0 | 0.133 ± 0 | ahead |" in report
    [attention] = [line for line in report.splitlines() if line.startswith("| attention | 2 |")]
    assert "0.6 ± 0" in attention
    assert "| lstm | 1 | 0.13 (0.13 to 0.13) | 0.60 (0.60 to 0.60) |" in report


def test_a_profile_compares_over_the_same_tasks() -> None:
    entries = [entry("attention", 0, [0.5]), entry("lstm", 0, [0.7])]
    entries += [entry("attention", 0, [0.1], task="t_maze_30")]
    entries += [entry("mlp", 0, [0.3], task="noise_before_cue")]
    report = render(entries)
    assert "| attention | 2 | 0.30 (0.30 to 0.30) | 0.30 (0.30 to 0.30) |" in report
    assert "| lstm | 1 | 0.70 (0.70 to 0.70) | 0.50 (0.50 to 0.50) |" in report
    assert "| mlp | 0 | – | – |" in report


@pytest.mark.parametrize(
    ("values", "standing"),
    [([0.3, 0.5], "behind"), ([0.3, 0.9], "level"), ([0.8, 0.9], "ahead"), ([0.3], "")],
)
def test_the_report_says_where_attention_loses(values: list[float], standing: str) -> None:
    entries = [entry("attention", seed, [value]) for seed, value in enumerate(values)]
    entries += [entry("lstm", seed, [value]) for seed, value in enumerate([0.6, 0.7])]
    [row] = [line for line in render(entries).splitlines() if line.startswith("| t_maze")]
    assert row.endswith(f"| {standing} |")


def test_a_ledger_has_each_run_once_and_the_newest_outcome(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert read_ledger(path) == read_ledger(None) == []
    write_ledger(path, [entry("lstm", 1, [0.1]), entry("lstm", 0, [math.nan])])
    again = [*read_ledger(path), entry("lstm", 1, [0.123456])]
    write_ledger(path, again)
    first, second = read_ledger(path)
    assert math.isnan(first["outcome"]["last"])
    assert math.isinf(second["outcome"]["steps"])
    assert second["outcome"]["last"] == 0.1235
    assert second["outcome"]["marks"] == [0.1235] * 4
    assert [name_of(found) for found in (first, second)] == [
        "t_maze_10-lstm-0-30",
        "t_maze_10-lstm-1-30",
    ]


PAGES = sorted((Path(__file__).parents[3] / "docs").glob("learning_benchmark*.jsonl"))


@pytest.mark.parametrize("ledger", PAGES, ids=[path.stem for path in PAGES])
def test_a_page_of_the_docs_is_the_report_of_its_ledger(ledger: Path) -> None:
    assert ledger.with_suffix(".md").read_text() == render(read_ledger(ledger))


def test_the_report_says_which_options_are_not_the_benchmarks() -> None:
    known = entry("lstm", 0, [0.1])
    assert "config.training" not in render([known])
    known["run"]["training"] = {"lambda_": 0.95}
    assert 'With `config.training` of `{"lambda_": 0.95}`.' in render([known])


def test_a_run_of_other_options_needs_a_label() -> None:
    entries = [entry("lstm", 0, [0.1])]
    known = {"task": "t_maze_10", "model": "lstm", "label": "lstm", "budget": 30}
    assert is_known(Run(**known), entries)
    assert not is_known(Run(**known, seed=1), entries)
    with pytest.raises(ValueError, match=r"Give other options a `--label`"):
        is_known(Run(**known, training={"lr": 1e-3}), entries)


def test_a_run_of_a_task_that_is_gone_is_named() -> None:
    with pytest.raises(ValueError, match=r"move gone-mlp-0-80\.json out"):
        entry_of({"run": {"task": "gone", "model": "mlp", "budget": 80}, "curve": curve([1.0])})
