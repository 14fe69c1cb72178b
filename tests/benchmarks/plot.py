"""The plot: PPO side by side, and the growth curves with what linear growth would be."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from tests.benchmarks.labels import LABELS
from tests.benchmarks.timing import spread

PHASES = ("rollout", "learner", "iteration")


def plot(results: dict[str, Any], path: Path) -> None:
    """Draws one panel for each comparison and each growth curve of a run.

    Args:
        results: What `__main__` has measured; parts may be missing.
        path: Where to write the picture.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    bars = [(f"PPO, {size}", times) for size, times in results.get("ppo", {}).items()]
    curves = [
        (f"{what} over {axis}", points)
        for what, axes in _growth(results).items()
        for axis, points in axes.items()
    ]
    count = max(1, len(bars) + len(curves))
    columns = min(4, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.4 * rows), squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes, (title, times) in zip(panels, bars, strict=False):
        _draw_bars(axes, title, times)
    for axes, (title, points) in zip(panels[len(bars) :], curves, strict=False):
        _draw_curve(axes, title, points)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _growth(results: dict[str, Any]) -> dict[str, dict]:
    found = {}
    if "rollout" in results:
        found["rollout per env step"] = results["rollout"]
    if "learner" in results:
        found["encoder pass"] = results["learner"]["encoder"]
    return found


def _draw_bars(axes: Axes, title: str, times: dict) -> None:
    width = 0.8 / len(times)
    for index, (model, by_phase) in enumerate(times.items()):
        spreads = [spread([1e6 * value for value in by_phase[phase]]) for phase in PHASES]
        where = [position + index * width for position in range(len(PHASES))]
        error = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
        medians = [s.median for s in spreads]
        axes.bar(where, medians, width, yerr=error, label=LABELS[model], capsize=2)
    axes.set_xticks([position + 0.4 - width / 2 for position in range(len(PHASES))], PHASES)
    axes.set_ylabel("ms per 1,000 env steps")
    axes.set_title(title)
    axes.legend(fontsize="x-small")


def _draw_curve(axes: Axes, title: str, points: dict) -> None:
    values = [int(point) for point in points]
    for kind in next(iter(points.values())):
        spreads = [spread(figures[kind]) for figures in points.values()]
        base = spreads[0].median
        medians = [s.median / base for s in spreads]
        axes.plot(values, medians, marker="o", label=kind)
        low, high = [s.low / base for s in spreads], [s.high / base for s in spreads]
        axes.fill_between(values, low, high, alpha=0.2)
    axes.plot(values, [v / values[0] for v in values], ":", color="gray", label="linear")
    axes.set(xscale="log", yscale="log", title=title, ylabel="times the first")
    axes.set_xticks(values, [str(value) for value in values])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(fontsize="x-small")
