"""Draws attention weights: maps of step and lag, how weight falls with the lag, and rewards."""

from pathlib import Path
from typing import Any

import numpy as np

from rllib_attention.inspection.record import AttentionRecord

# Most columns of a map: of longer episodes, steps are averaged.
_MAX_COLUMNS = 600


def plot_attention(
    record: AttentionRecord,
    path: str | Path,
    *,
    max_steps: int | None = None,
    max_distance: int | None = None,
) -> Path:
    """Draws maps of each layer's heads and their mean, how weight falls with the lag, and rewards.

    A map's columns are steps, its rows lags: how many steps back the weight lies. Where a layer
    sees far, a row holds a range of lags and their whole weight, and ranges grow with the lag.

    Args:
        record: From `record_attention`.
        path: Where the picture goes; its folder is made if needed.
        max_steps: Steps of the episode that the maps show; None for all.
        max_distance: Largest lag that is shown; None for what the layers see.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("`plot_attention` needs matplotlib: `pip install matplotlib`.") from error
    edges = record.lag_edges()
    if max_distance is not None:
        edges = edges[: np.searchsorted(edges, max_distance, side="right") + 1]
    steps = record.start + np.arange(len(record))[:max_steps]
    heads: list[int | None] = [*range(record.num_heads), None]
    rows, maps = 2 * record.num_layers, []
    figure = Figure(figsize=(2.9 * len(heads) + 1, 1.9 * rows + 1.8), layout="constrained")
    grid = figure.add_gridspec(rows + 1, len(heads), height_ratios=[3, 2] * record.num_layers + [2])
    for layer in range(record.num_layers):
        for column, head in enumerate(heads):
            title = f"layer {layer + 1}, " + ("mean" if head is None else f"head {head + 1}")
            weights = record.by_lag(edges, layer=layer, head=head)[: len(steps)]
            axis = figure.add_subplot(grid[2 * layer, column])
            axis.set_title(title, fontsize=9)
            drawn = _draw_map(axis, weights, edges, steps)
            # Weights are spread thin over a long window: small ones are to be seen as well.
            drawn.set_norm(PowerNorm(0.5, 0.0, 1.0))
            maps.append(axis)
            profile = record.lag_profile(layer=layer, head=head)
            _draw_profile(figure.add_subplot(grid[2 * layer + 1, column]), *profile, edges)
    figure.colorbar(drawn, ax=maps, label="weight", aspect=60)
    _draw_rewards(figure.add_subplot(grid[rows, :]), steps, record.rewards[: len(steps)])
    figure.suptitle("Attention weights: how far back each step of the episode looks")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def average_steps(values: np.ndarray, max_columns: int = _MAX_COLUMNS) -> np.ndarray:
    """Averages neighbouring steps until there are few enough: (T, ...) → (at most max, ...).

    Args:
        values: One row for each step, (T, ...).
        max_columns: Most rows of the result.
    """
    size = -(-len(values) // max_columns)
    first = np.arange(0, len(values), size)
    counts = np.diff(np.append(first, len(values)))
    sums = np.add.reduceat(values, first, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def _draw_map(axis: Any, weights: np.ndarray, edges: np.ndarray, steps: np.ndarray) -> Any:
    extent = (steps[0] - 0.5, steps[-1] + 0.5, -0.5, len(edges) - 1.5)
    drawn = axis.imshow(
        average_steps(weights).T,
        cmap="magma",
        interpolation="nearest",
        aspect="auto",
        origin="lower",
        extent=extent,
    )
    axis.set_xlabel("step", fontsize=7)
    axis.set_ylabel("steps back", fontsize=7)
    _count_in_whole_steps(axis.xaxis)
    rows = np.unique(np.linspace(0, len(edges) - 2, 7).round().astype(int))
    axis.set_yticks(rows, [str(edges[row]) for row in rows])
    axis.tick_params(labelsize=6)
    return drawn


def _draw_profile(axis: Any, lags: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> None:
    shown = lags < edges[-1]
    axis.vlines(lags[shown], 0.0, weights[shown], color="tab:purple", linewidth=3)
    axis.set_xlim(-0.5, lags[shown][-1] + 0.5)
    axis.set_ylim(bottom=0.0)
    axis.set_xlabel("steps back", fontsize=7)
    axis.set_ylabel("mean weight", fontsize=7)
    _count_in_whole_steps(axis.xaxis)
    axis.tick_params(labelsize=6)


def _draw_rewards(axis: Any, steps: np.ndarray, rewards: np.ndarray) -> None:
    axis.plot(steps, rewards, color="tab:green", linewidth=1, drawstyle="steps-mid")
    axis.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    axis.set_xlabel("step", fontsize=7)
    axis.set_ylabel("reward", fontsize=7)
    _count_in_whole_steps(axis.xaxis)
    axis.tick_params(labelsize=6)


def _count_in_whole_steps(axis: Any) -> None:
    """Sets ticks at whole numbers, even if it is one: there is nothing at half a step."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
