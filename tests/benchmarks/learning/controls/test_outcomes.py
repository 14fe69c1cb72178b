"""Finished runs are read back, summed up over seeds, and put into tables."""

import json
import math
from pathlib import Path

import pytest
from common.run import closing_line

from tests.benchmarks.learning.controls import tables
from tests.benchmarks.learning.controls.outcomes import (
    Outcome,
    mean_and_spread,
    read_outcome,
    summarize,
    value_at,
)

CURVE = ((1000.0, -0.5), (2000.0, 0.5), (3000.0, 0.9))


def write_run(folder: Path, *, closing: str, rows: list[tuple[int, float]]) -> None:
    folder.mkdir(parents=True)
    lines = [f"{i},{steps},{steps / 100},{value}" for i, (steps, value) in enumerate(rows)]
    header = "iteration,env_steps,cpu_seconds,return"
    (folder / "progress.csv").write_text("\n".join([header, *lines]) + "\n")
    (folder / "log.txt").write_text(f"some progress\n{closing}\n")


def outcome(model: str, seed: int, steps: int, *, reached: bool, value: float = 0.9) -> Outcome:
    return Outcome("task", model, seed, value, steps, steps / 1000, reached, CURVE)


def test_a_finished_run_is_read(tmp_path: Path) -> None:
    line = closing_line(0.912, 3000, 12.34, bar=0.9)
    rows = [(1000, math.nan), (2000, 0.5), (3000, 0.912)]
    write_run(tmp_path / "run", closing=line, rows=rows)
    found = read_outcome(tmp_path / "run", "task", "lstm", 2)
    curve = ((2000.0, 0.5), (3000.0, 0.912))
    assert found == Outcome("task", "lstm", 2, 0.912, 3000, 30.0, True, curve)


def test_a_run_that_missed_the_bar_is_finished_too(tmp_path: Path) -> None:
    line = closing_line(-0.5, 3000, 12.0, bar=0.9)
    write_run(tmp_path / "run", closing=line, rows=[(3000, -0.5)])
    found = read_outcome(tmp_path / "run", "task", "mlp", 0)
    assert found is not None
    assert not found.reached


@pytest.mark.parametrize("log", [None, "", "iter 1  return 0.5\n", "Traceback\nKeyError: 'obs'\n"])
def test_an_unfinished_run_is_none(tmp_path: Path, log: str | None) -> None:
    if log is not None:
        (tmp_path / "log.txt").write_text(log)
    assert read_outcome(tmp_path, "task", "mlp", 0) is None


@pytest.mark.parametrize(
    ("steps", "value"),
    [(999, math.nan), (1000, -0.5), (1500, 0.0), (2000, 0.5), (3000, 0.9), (9000, 0.9)],
)
def test_value_at(steps: float, value: float) -> None:
    assert value_at(CURVE, steps) == pytest.approx(value, nan_ok=True)


def test_value_at_of_no_curve_is_nan() -> None:
    assert math.isnan(value_at((), 10))


@pytest.mark.parametrize(
    ("values", "mean", "spread"),
    [([], math.nan, math.nan), ([2], 2.0, math.nan), ([1, 2, 3], 2.0, 1.0)],
)
def test_mean_and_spread(values: list[float], mean: float, spread: float) -> None:
    assert mean_and_spread(values) == pytest.approx((mean, spread), nan_ok=True)


def test_summary_counts_steps_to_the_bar_of_runs_that_got_there() -> None:
    runs = [outcome("lstm", 0, 100, reached=True), outcome("lstm", 1, 300, reached=True)]
    summary = summarize([*runs, outcome("lstm", 2, 500, reached=False, value=0.0)])
    assert (summary.runs, summary.reached, summary.budget) == (3, 2, 500)
    assert summary.steps == pytest.approx((200, math.sqrt(2) * 100))
    assert summary.value[0] == pytest.approx(0.6)
    assert summary.taken == pytest.approx(300)


def test_summary_of_nothing_raises() -> None:
    with pytest.raises(ValueError, match="summarize needs at least one outcome"):
        summarize([])


def test_task_table() -> None:
    runs = [
        outcome("attention", 0, 1000, reached=True),
        outcome("attention", 1, 2000, reached=True),
        outcome("lstm", 0, 6000, reached=True),
        outcome("gtrxl", 0, 6000, reached=True),
        outcome("gtrxl", 1, 9000, reached=False, value=0.1),
        outcome("mlp", 0, 9000, reached=False, value=-0.5),
    ]
    rows = tables.task_table("task", runs).splitlines()[2:]
    assert rows == [
        "| attention | 2 of 2 | 1,500 ± 707 | 1.0 × | 2 ± 1 | 0.90 ± 0.00 |",
        "| RLlib's LSTM | 1 of 1 | 6,000 | 4.0 × | 6 | 0.90 |",
        "| RLlib's GTrXL | 1 of 2 | 6,000 | > 5.0 × | 6 | 0.50 ± 0.57 |",
        "| RLlib's MLP (no memory) | 0 of 1 | not reached in 9,000 | > 6.0 × | – | -0.50 |",
    ]


def test_no_factor_where_attention_missed_the_bar_on_a_seed() -> None:
    runs = [outcome("attention", 0, 1000, reached=True), outcome("lstm", 0, 6000, reached=True)]
    table = tables.task_table("task", [*runs, outcome("attention", 1, 9000, reached=False)])
    assert table.count(" – ") == 2


def test_success_table() -> None:
    runs = [
        Outcome("short", "attention", 0, 0.9, 100, 1.0, True),
        Outcome("short", "attention", 1, 1.0, 100, 1.0, True),
        Outcome("long", "attention", 0, 0.92, 100, 1.0, True),
        Outcome("short", "mlp", 0, -0.1, 100, 1.0, False),
    ]
    assert tables.success_table({10: "short", 100: "long"}, runs).splitlines() == [
        "| success at the end, corridor of | 10 | 100 |",
        "|---|---|---|",
        "| attention | 0.97 ± 0.04 | 0.96 |",
        "| RLlib's MLP (no memory) | 0.45 | – |",
    ]


def test_json_holds_all_but_the_curves(tmp_path: Path) -> None:
    tables.write_json([outcome("lstm", 3, 100, reached=True)], tmp_path / "runs.json")
    (row,) = json.loads((tmp_path / "runs.json").read_text())
    assert row["model"] == "lstm"
    assert row["seed"] == 3
    assert "curve" not in row
    assert Outcome(**row).env_steps == 100
