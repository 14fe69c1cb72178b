"""Tables of finished runs, as Markdown and as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.learning.controls.outcomes import Outcome, Summary, mean_and_spread, summarize

MODEL_NAMES = {
    "attention": "attention",
    "lstm": "RLlib's LSTM",
    "gtrxl": "RLlib's GTrXL",
    "mlp": "RLlib's MLP (no memory)",
}


def plus_minus(pair: tuple[float, float], digits: int = 0) -> str:
    """Formats mean and deviation.

    Args:
        pair: Mean and deviation; the latter is left out if it is not a number.
        digits: Digits after the point.

    Returns:
        E.g. `57,414 ± 3,200`.
    """
    mean, spread = (f"{number:,.{digits}f}" for number in pair)
    return mean if math.isnan(pair[1]) else f"{mean} ± {spread}"


def group(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Collects the seeds of each pair of task and model."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.task, outcome.model), []).append(outcome)
    return groups


def relative_steps(summary: Summary, attention: Summary | None) -> str:
    """Compares a model's steps to the bar with those of attention.

    Args:
        summary: The model.
        attention: Attention on the same task, if it was run.

    Returns:
        A factor; with `>` if some of the model's runs never got there (they count with the steps
        of their budget), and a dash if attention did not get there on each seed either.
    """
    if attention is None or attention.reached < attention.runs:
        return "–"
    sign = "> " if summary.reached < summary.runs else ""
    return f"{sign}{summary.taken / attention.taken:.1f} ×"


def task_table(task: str, outcomes: Sequence[Outcome]) -> str:
    """Makes the table of one task.

    Args:
        task: Name of the task.
        outcomes: Outcomes of all tasks.

    Returns:
        Markdown with one row per model.
    """
    groups = {model: runs for (name, model), runs in group(outcomes).items() if name == task}
    summaries = {m: summarize(groups[m]) for m in MODEL_NAMES if m in groups}
    lines = [
        "| model | seeds at the bar | env steps to the bar | against attention "
        "| CPU seconds to the bar | return at the end |",
        "|---|---|---|---|---|---|",
    ]
    for model, summary in summaries.items():
        lines.append(_row(model, summary, summaries.get("attention")))
    return "\n".join(lines)


def _row(model: str, summary: Summary, attention: Summary | None) -> str:
    steps, seconds = plus_minus(summary.steps), plus_minus(summary.seconds)
    if not summary.reached:
        steps, seconds = f"not reached in {summary.budget:,}", "–"
    cells = [
        MODEL_NAMES[model],
        f"{summary.reached} of {summary.runs}",
        steps,
        relative_steps(summary, attention),
        seconds,
        plus_minus(summary.value, 0 if abs(summary.value[0]) >= 10 else 2),
    ]
    return f"| {' | '.join(cells)} |"


def success_by_length(
    tasks: Mapping[int, str], outcomes: Sequence[Outcome]
) -> dict[str, dict[int, tuple[float, float]]]:
    """Collects the success rates at the end of training in the T-maze.

    Args:
        tasks: Name of the T-maze task for each corridor length.
        outcomes: Outcomes of all tasks.

    Returns:
        For each model's title, the mean and the deviation by corridor length. Success follows from
        the return: the maze pays +1 for success and -1 for failure.
    """
    groups = group(outcomes)
    return {
        title: {
            length: mean_and_spread((outcome.value + 1) / 2 for outcome in groups[task, model])
            for length, task in tasks.items()
            if (task, model) in groups
        }
        for model, title in MODEL_NAMES.items()
        if any((task, model) in groups for task in tasks.values())
    }


def success_table(tasks: Mapping[int, str], outcomes: Sequence[Outcome]) -> str:
    """Makes the table of success against corridor length.

    Args:
        tasks: Name of the T-maze task for each corridor length.
        outcomes: Outcomes of all tasks.

    Returns:
        Markdown with one row per model and one column per length.
    """
    lines = [
        "| success at the end, corridor of | " + " | ".join(str(length) for length in tasks) + " |",
        "|---|" + "---|" * len(tasks),
    ]
    for title, rates in success_by_length(tasks, outcomes).items():
        cells = [plus_minus(rates[n], 2) if n in rates else "–" for n in tasks]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_json(outcomes: Sequence[Outcome], path: Path) -> None:
    """Writes all outcomes without their curves.

    Args:
        outcomes: What to write.
        path: The file.
    """
    rows = [dataclasses.asdict(outcome) for outcome in outcomes]
    for row in rows:
        del row["curve"]
    path.write_text(json.dumps(rows, indent=1) + "\n")
