"""Learning curves of several models over seeds, and success against corridor length."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.learning.controls.outcomes import mean_and_spread, value_at

Curve = Sequence[tuple[float, float]]  # environment steps and mean return


def plot_bands(
    curves: Mapping[str, Sequence[Curve]], path: Path, *, title: str, bar: float | None = None
) -> None:
    """Draws the mean over seeds and its deviation, for several models.

    Args:
        curves: For each label the learning curves of all seeds. A run that has ended is taken to
            stay where it was, so that the mean is over the same seeds everywhere.
        path: PNG file to write.
        title: Title of the plot.
        bar: Return to reach, drawn as a dashed line.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for label, runs in curves.items():
        grid = sorted({steps for curve in runs for steps, _ in curve})
        # From where on each seed has a return.
        grid = [steps for steps in grid if steps >= max(curve[0][0] for curve in runs if curve)]
        points = [mean_and_spread(value_at(curve, steps) for curve in runs) for steps in grid]
        (line,) = axes.plot(grid, [mean for mean, _ in points], label=label)
        if len(runs) > 1:
            low, high = ([mean + sign * spread for mean, spread in points] for sign in (-1, 1))
            axes.fill_between(grid, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    if bar is not None:
        axes.axhline(bar, linestyle="--", color="grey")
    axes.set(title=title, xlabel="environment steps", ylabel="mean episode return")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def plot_success(
    rates: Mapping[str, Mapping[int, tuple[float, float]]], path: Path, *, title: str
) -> None:
    """Draws success rates against the length of the corridor.

    Args:
        rates: For each label the mean and the deviation by length.
        path: PNG file to write.
        title: Title of the plot.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for label, points in rates.items():
        means = [mean for mean, _ in points.values()]
        spreads = [0.0 if math.isnan(spread) else spread for _, spread in points.values()]
        axes.errorbar(list(points), means, yerr=spreads, marker="o", capsize=3, label=label)
    axes.axhline(0.5, linestyle="--", color="grey")
    axes.set(title=title, xlabel="steps from cue to choice", ylabel="success rate", xscale="log")
    lengths = sorted({length for points in rates.values() for length in points})
    axes.set_xticks(lengths, [str(length) for length in lengths], minor=False)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)
