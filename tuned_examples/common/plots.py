"""Learning curves, as a picture."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from common.cli import EXTRA_HINT

Curve = Sequence[tuple[float, float]]  # environment steps and mean return


def plot_curves(curves: Mapping[str, Curve], path: Path, *, bar: float) -> None:
    """Draws mean episode returns over environment steps, if matplotlib is installed.

    Args:
        curves: Pairs of environment steps and return by label; NaN (no episode has ended yet) is
            left out.
        path: PNG file to write.
        bar: The return to reach, drawn as a dashed line.
    """
    if find_spec("matplotlib") is None:
        print(f"{path.name} is not drawn, matplotlib is missing: {EXTRA_HINT}")
        return
    # The object interface: no global backend is switched, and no display is needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for label, curve in curves.items():
        points = [point for point in curve if not math.isnan(point[1])]
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=label)
    axes.axhline(bar, linestyle="--", color="grey", label=f"bar {bar:g}")
    axes.set(xlabel="environment steps", ylabel="mean episode return")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="x-small")
    figure.savefig(path, dpi=150)
