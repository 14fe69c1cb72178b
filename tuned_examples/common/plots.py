"""The learning curve."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_curve(
    rows: Sequence[Mapping[str, float]], path: Path, *, title: str, bar: float | None = None
) -> None:
    """Draws the mean episode return over environment steps.

    Args:
        rows: One mapping per iteration with `env_steps` and `return`; a return that is not a
            number (no episode has ended yet) is left out.
        path: PNG file to write.
        title: Title of the plot.
        bar: Return to reach, drawn as a dashed line.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    # The object interface: no global backend is switched, and no display is needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    done = [row for row in rows if not math.isnan(row["return"])]
    axes.plot([row["env_steps"] for row in done], [row["return"] for row in done], marker=".")
    if bar is not None:
        axes.axhline(bar, linestyle="--", color="grey", label=f"bar {bar:g}")
        axes.legend(loc="lower right")
    axes.set(title=title, xlabel="environment steps", ylabel="mean episode return")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def plot_trials(
    curves: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, title: str
) -> None:
    """Draws the learning curves of several trials into one plot.

    Args:
        curves: Pairs of environment steps and mean return, by label.
        path: PNG file to write.
        title: Title of the plot.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.set(title=title, xlabel="environment steps", ylabel="mean episode return")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="x-small")
    figure.savefig(path, dpi=150)
