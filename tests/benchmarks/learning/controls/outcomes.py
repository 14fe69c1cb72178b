"""Reads finished runs back from their folders and sums them up over seeds."""

import csv
import itertools
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# The last line that every script prints; see `common.run.closing_line`.
_CLOSING_LINE = re.compile(
    r"return=(?P<value>\S+)  env_steps=(?P<steps>\d+)  seconds=(?P<seconds>[\d.]+)"
    r"  bar=(?P<bar>\S+) (?P<verdict>reached|not reached)"
)


@dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Attributes:
        task: Name of the task.
        model: Name of the model.
        seed: The run's seed.
        value: Mean return at the end, which is the first return at the bar or above it.
        env_steps: Environment steps taken.
        seconds: CPU time that training took; what else the machine did does not count.
        reached: Whether the run ended at the bar.
        curve: Pairs of environment steps and mean return, one for each iteration in which an
            episode had ended.
    """

    task: str
    model: str
    seed: int
    value: float
    env_steps: int
    seconds: float
    reached: bool
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Summary:
    """The outcomes of one model on one task, over seeds.

    Attributes:
        runs: How many runs there are.
        reached: How many of them ended at the bar.
        steps: Environment steps to the bar of those that reached it: mean and deviation.
        seconds: CPU seconds to the bar of those that reached it: mean and deviation.
        value: Return at the end of all runs: mean and deviation.
        taken: Environment steps that all runs took on average; one that missed the bar took its
            whole budget.
        budget: The most steps that any run took.
    """

    runs: int
    reached: int
    steps: tuple[float, float]
    seconds: tuple[float, float]
    value: tuple[float, float]
    taken: float
    budget: int


def closing_line_of(log: Path) -> re.Match[str] | None:
    """Finds the closing line at the end of a script's output.

    Args:
        log: The file that holds the output.

    Returns:
        The line's parts, or None if the script has not come to its end.
    """
    lines = log.read_text().splitlines() if log.exists() else []
    return _CLOSING_LINE.fullmatch(lines[-1]) if lines else None


def read_outcome(folder: Path, task: str, model: str, seed: int) -> Outcome | None:
    """Reads one run.

    Args:
        folder: The run's folder, with `log.txt` (the script's output) and `progress.csv`.
        task: Name of the task.
        model: Name of the model.
        seed: The run's seed.

    Returns:
        The outcome, or None if the run is not finished.
    """
    line = closing_line_of(folder / "log.txt")
    if line is None:
        return None
    return Outcome(
        task=task,
        model=model,
        seed=seed,
        value=float(line["value"]),
        env_steps=int(line["steps"]),
        seconds=read_column(folder / "progress.csv", "cpu_seconds")[-1],
        reached=line["verdict"] == "reached",
        curve=read_curve(folder / "progress.csv"),
    )


def read_curve(path: Path) -> tuple[tuple[float, float], ...]:
    """Reads a learning curve.

    Args:
        path: A run's `progress.csv`.

    Returns:
        Pairs of environment steps and mean return, without iterations that have no return yet.
    """
    points = zip(read_column(path, "env_steps"), read_column(path, "return"), strict=True)
    return tuple((steps, value) for steps, value in points if not math.isnan(value))


def read_column(path: Path, name: str) -> list[float]:
    """Reads one column of a run's `progress.csv`.

    Args:
        path: The file.
        name: Name of the column.

    Returns:
        One number per iteration.
    """
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """Sums up the runs of one model on one task.

    Args:
        outcomes: One outcome per seed.

    Returns:
        Means and deviations over seeds.

    Raises:
        ValueError: If there is no outcome.
    """
    if not outcomes:
        raise ValueError("summarize needs at least one outcome")
    ended = [outcome for outcome in outcomes if outcome.reached]
    return Summary(
        runs=len(outcomes),
        reached=len(ended),
        steps=mean_and_spread(outcome.env_steps for outcome in ended),
        seconds=mean_and_spread(outcome.seconds for outcome in ended),
        value=mean_and_spread(outcome.value for outcome in outcomes),
        taken=statistics.fmean(outcome.env_steps for outcome in outcomes),
        budget=max(outcome.env_steps for outcome in outcomes),
    )


def mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation.

    Args:
        values: Numbers. NaN is passed on.

    Returns:
        Both, as NaN where there are too few numbers: none for a mean, one for a deviation.
    """
    numbers = [float(value) for value in values]
    mean = statistics.fmean(numbers) if numbers else math.nan
    return mean, statistics.stdev(numbers) if len(numbers) > 1 else math.nan


def value_at(curve: Sequence[tuple[float, float]], steps: float) -> float:
    """Reads a curve between its points.

    Args:
        curve: Pairs of environment steps and mean return, in order.
        steps: Where to read it.

    Returns:
        The return, linear between points; NaN before the first point, and the last one's return
        after it: a run that ends at the bar is taken to stay there.
    """
    if not curve or steps < curve[0][0]:
        return math.nan
    for (left, low), (right, high) in itertools.pairwise(curve):
        if steps <= right:
            return low + (high - low) * (steps - left) / (right - left)
    return curve[-1][1]
