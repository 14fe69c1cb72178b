"""What runs say together: returns at several step counts, and a profile over all tasks.

The interquartile mean with stratified bootstrap intervals is that of rliable ("Deep Reinforcement
Learning at the Edge of the Statistical Precipice", https://arxiv.org/abs/2108.13264).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Shares of the budget at which returns are reported.
MARKS = (0.25, 0.5, 0.75, 1.0)
# A single row is the mean of 100 episodes; three are less noisy.
SMOOTHED = 3


def outcome(curve: Sequence[dict[str, float]], budget: int, bar: float) -> dict[str, Any]:
    """Sums a curve up.

    Args:
        curve: Rows of `steps`, `cpu` and `value`.
        budget: Env steps of the run.
        bar: The return whose cost is asked for.

    Returns:
        `marks` (returns, in the order of `MARKS`), `best` and `last`, all smoothed over three
        rows, and `steps` and `cpu` to the bar, infinite if it was not reached.
    """
    rows = [row for row in curve if not math.isnan(row["value"])]
    if not rows:
        never = dict.fromkeys(_COSTS, math.inf)
        return {"marks": [math.nan] * len(MARKS), "best": math.nan, "last": math.nan} | never
    smooth = [
        float(np.mean([row["value"] for row in rows[max(0, i + 1 - SMOOTHED) : i + 1]]))
        for i in range(len(rows))
    ]
    steps = np.array([row["steps"] for row in rows])
    places = np.searchsorted(steps, [mark * budget for mark in MARKS])
    marks = [smooth[min(int(place), len(rows) - 1)] for place in places]
    hit = next((row for row, value in zip(rows, smooth, strict=True) if value >= bar), None)
    cost = {"steps": hit["steps"], "cpu": hit["cpu"]} if hit else dict.fromkeys(_COSTS, math.inf)
    return {"marks": marks, "best": max(smooth), "last": smooth[-1]} | cost


_COSTS = ("steps", "cpu")


def interquartile_mean(scores: np.ndarray) -> float:
    """Returns the mean of the middle half of all scores, as `scipy.stats.trim_mean(x, 0.25)`.

    Args:
        scores: Any shape.
    """
    values = np.sort(scores, axis=None)
    cut = int(0.25 * len(values))
    return float(values[cut : len(values) - cut].mean())


def bootstrap(
    scores: Sequence[Sequence[float]], *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Returns the interquartile mean over tasks and seeds and its 95% interval.

    Args:
        scores: For each task the scores of its seeds; their number may differ.
        rounds: Resamplings. Seeds are drawn with replacement within each task.
        seed: Of the resampling.

    Returns:
        The mean, the interval's lower and its upper end.

    Raises:
        ValueError: If a task has no score.
    """
    if not scores or not all(len(task) for task in scores):
        raise ValueError("`bootstrap` expects at least one score for each task")
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(rounds):
        drawn = [rng.choice(np.asarray(task), size=len(task)) for task in scores]
        means.append(interquartile_mean(np.concatenate(drawn)))
    low, high = np.percentile(means, (2.5, 97.5))
    return interquartile_mean(np.concatenate([np.asarray(t) for t in scores])), low, high
