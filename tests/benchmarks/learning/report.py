"""Turns a folder of finished runs into one Markdown report."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.learning.ledger import Entry
from tests.benchmarks.learning.scores import MARKS, bootstrap
from tests.benchmarks.learning.tasks import TASKS, Task

Outcomes = dict[tuple[str, int], dict[str, dict[int, dict[str, Any]]]]

HEAD = """# Learning: attention and RLlib's own models

Made by `python -m tests.benchmarks.learning`. Means over seeds ± their standard deviation. All
models of a task have the same width, batch, epochs, learning rate, tokenizer and sharing of the
critic. *Best* is the highest return on the way, *kept* is last / best on the task's scale from 0
(guessing or random actions) to 1; steps and CPU seconds to the bar count only runs that reached it.
A profile is the interquartile mean of scores at the budget, with a 95% interval over seeds, of each
model on the tasks that attention was run on as well. Beside the LSTM attention is *ahead* or
*behind* where their mean returns at the budget differ by more than the larger deviation over seeds.
"""


def render(entries: Sequence[Entry]) -> str:
    """Returns the report.

    Args:
        entries: Of a ledger.
    """
    outcomes = _by_task(entries)
    parts = [HEAD, *_options(entries), *_profiles(outcomes), _overview(outcomes)]
    for (task, budget), labels in sorted(outcomes.items()):
        parts.append(
            f"## {task} ({TASKS[task].role}), {budget:,} env steps\n\n{_table(task, labels)}"
        )
    return "\n".join(parts)


def _by_task(entries: Iterable[Entry]) -> Outcomes:
    """Sorts outcomes by task and budget, then by label, then by seed."""
    outcomes: Outcomes = defaultdict(lambda: defaultdict(dict))
    for entry in entries:
        run = entry["run"]
        outcomes[run["task"], run["budget"]][run["label"]][run["seed"]] = entry["outcome"]
    return outcomes


def _options(entries: Iterable[Entry]) -> Iterable[str]:
    """Says which options of training are not the benchmark's, a line for each set of them."""
    options = {json.dumps(entry["run"].get("training", {})) for entry in entries} - {"{}"}
    return (f"With `config.training` of `{option}`.\n" for option in sorted(options))


def _overview(outcomes: Outcomes) -> str:
    labels = sorted({label for runs in outcomes.values() for label in runs})
    lines = [f"| task | {' | '.join(labels)} | attention beside the LSTM |"]
    lines.append("|---" * (len(labels) + 2) + "|")
    for (task, budget), runs in sorted(outcomes.items()):
        cells = [_lasts(runs.get(label, {})) for label in labels]
        lines.append(f"| {task}, {budget:,} | {' | '.join(cells)} | {_standing(runs)} |")
    return "## Return at the budget\n\n" + "\n".join(lines) + "\n"


def _lasts(runs: dict[int, dict[str, Any]]) -> str:
    return _spread([run["last"] for run in runs.values()])


def _standing(runs: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Says whether attention ends ahead of RLlib's LSTM or behind it, "level" for neither.

    What counts is a difference of means above the larger deviation over seeds. A single seed has no
    deviation, and says nothing.
    """
    own, rival = ([run["last"] for run in runs.get(m, {}).values()] for m in ("attention", "lstm"))
    if min(len(own), len(rival)) < 2:
        return ""
    difference = np.mean(own) - np.mean(rival)
    if abs(difference) <= max(np.std(own), np.std(rival)):
        return "level"
    return "ahead" if difference > 0 else "behind"


def _profiles(outcomes: Outcomes) -> Iterable[str]:
    for role in sorted({TASKS[task].role for task, _ in outcomes}):
        scores = [
            _scores(TASKS[task], runs)
            for (task, _), runs in outcomes.items()
            if TASKS[task].role == role
        ]
        labels = {label for task in scores for label in task}
        lines = ["| model | tasks | its scores | attention's on the same tasks |", "|---" * 4 + "|"]
        lines += [_profile_row(label, scores) for label in sorted(labels)]
        yield f"## Profile over the {role} tasks\n\n" + "\n".join(lines) + "\n"


def _scores(task: Task, runs: dict[str, dict[int, dict[str, Any]]]) -> dict[str, list[float]]:
    return {
        label: [task.score(run["last"]) for run in found.values()] for label, found in runs.items()
    }


def _profile_row(label: str, scores: Sequence[dict[str, list[float]]]) -> str:
    shared = [task for task in scores if {label, "attention"} <= task.keys()]
    cells = [_interval([task[name] for task in shared]) for name in (label, "attention")]
    return f"| {label} | {len(shared)} | {cells[0]} | {cells[1]} |"


def _interval(scores: Sequence[Sequence[float]]) -> str:
    if not scores:
        return "–"
    mean, low, high = bootstrap(scores)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _table(task: str, labels: dict[str, dict[int, dict[str, Any]]]) -> str:
    marks = " | ".join(f"{mark:.0%}" for mark in MARKS)
    lines = [
        f"| model | seeds | {marks} | best | kept | steps to {TASKS[task].bar:g} | CPU s |",
        "|---" * (len(MARKS) + 6) + "|",
    ]
    return "\n".join(lines + [_row(task, label, runs) for label, runs in labels.items()]) + "\n"


def _row(task: str, label: str, runs: dict[int, dict[str, Any]]) -> str:
    all_runs = list(runs.values())
    cells = [_spread(values) for values in zip(*(run["marks"] for run in all_runs), strict=True)]
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
