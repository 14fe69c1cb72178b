"""Turns a folder of finished runs into one Markdown report."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.learning.scores import MARKS, bootstrap, outcome
from tests.benchmarks.learning.tasks import TASKS

Outcomes = dict[tuple[str, int], dict[str, dict[int, dict[str, Any]]]]

HEAD = """# Learning: attention and RLlib's own models

Made by `python -m tests.benchmarks.learning`. Means over seeds ± their standard deviation. All
models of a task have the same width, batch, epochs, learning rate, tokenizer and sharing of the
critic. *Best* is the highest return on the way, *kept* is last / best on the task's scale from 0
(guessing or random actions) to 1; steps and CPU seconds to the bar count only runs that reached it.
"""


def read_runs(folder: Path) -> Outcomes:
    """Reads the outcomes of all finished runs.

    Args:
        folder: Where runs write their files.

    Returns:
        By task and budget, then by label, then by seed.
    """
    outcomes: Outcomes = defaultdict(lambda: defaultdict(dict))
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        run = record["run"]
        summary = outcome(record["curve"], run["budget"], TASKS[run["task"]].bar)
        outcomes[run["task"], run["budget"]][run["label"]][run["seed"]] = summary
    return outcomes


def render(outcomes: Outcomes) -> str:
    """Returns the report.

    Args:
        outcomes: From `read_runs`.
    """
    parts = [HEAD, *_profiles(outcomes)]
    for (task, budget), labels in sorted(outcomes.items()):
        parts.append(
            f"## {task} ({TASKS[task].role}), {budget:,} env steps\n\n{_table(task, labels)}"
        )
    return "\n".join(parts)


def _profiles(outcomes: Outcomes) -> Iterable[str]:
    for role in sorted({TASKS[task].role for task, _ in outcomes}):
        rows = list(_profile_rows(outcomes, role))
        lines = [
            "| model | tasks | interquartile mean of scores at the budget (95%) |",
            "|---|---|---|",
        ]
        yield f"## Profile over the {role} tasks\n\n" + "\n".join(lines + rows) + "\n"


def _profile_rows(outcomes: Outcomes, role: str) -> Iterable[str]:
    labels = {label for runs in outcomes.values() for label in runs}
    for label in sorted(labels):
        scores = [
            [TASKS[task].score(run["last"]) for run in runs[label].values()]
            for (task, _), runs in outcomes.items()
            if label in runs and TASKS[task].role == role
        ]
        if scores:
            mean, low, high = bootstrap(scores)
            yield f"| {label} | {len(scores)} | {mean:.2f} ({low:.2f} to {high:.2f}) |"


def _table(task: str, labels: dict[str, dict[int, dict[str, Any]]]) -> str:
    marks = " | ".join(f"{mark:.0%}" for mark in MARKS)
    lines = [
        f"| model | seeds | {marks} | best | kept | steps to {TASKS[task].bar:g} | CPU s |",
        "|---" * (len(MARKS) + 6) + "|",
    ]
    return "\n".join(lines + [_row(task, label, runs) for label, runs in labels.items()]) + "\n"


def _row(task: str, label: str, runs: dict[int, dict[str, Any]]) -> str:
    all_runs = list(runs.values())
    cells = [_spread([run["marks"][mark] for run in all_runs]) for mark in MARKS]
    score = TASKS[task].score
    kept = [score(run["last"]) / score(run["best"]) for run in all_runs if score(run["best"]) > 0]
    cells += [_spread([run["best"] for run in all_runs]), _spread(kept)]
    cells += [_to_bar([run[cost] for run in all_runs]) for cost in ("steps", "cpu")]
    return f"| {label} | {len(runs)} | {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{np.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values):.2g}"


def _to_bar(values: Sequence[float]) -> str:
    reached = [value for value in values if math.isfinite(value)]
    if not reached:
        return "–"
    share = "" if len(reached) == len(values) else f" ({len(reached)} of {len(values)})"
    return f"{np.mean(reached):,.0f}{share}"
