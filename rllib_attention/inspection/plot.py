"""Draws attention weights."""

from pathlib import Path
from typing import Any

import numpy as np

from rllib_attention.inspection.record import AttentionRecord


def plot_attention(
    record: AttentionRecord, path: str | Path, *, max_steps: int = 64, max_distance: int = 16
) -> Path:
    """Draws a map for each layer and head, and how the weight falls over distances.

    Args:
        record: From `record_attention`.
        path: Where the picture goes; its folder is made if needed.
        max_steps: Steps of the episode that the maps show.
        max_distance: Largest distance of the bar charts.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("`plot_attention` needs matplotlib: `pip install matplotlib`.") from error
    num_layers, num_heads, length, _ = record.weights.shape
    steps, reach = min(length, max_steps), min(length - 1, max_distance)
    figure = Figure(figsize=(2.6 * num_heads + 1, 4.4 * num_layers + 0.6), layout="constrained")
    axes = figure.subplots(
        2 * num_layers, num_heads, squeeze=False, height_ratios=[3, 1] * num_layers
    )
    for layer, head in np.ndindex(num_layers, num_heads):
        _draw_map(axes[2 * layer, head], record.weights[layer, head, :steps, :steps])
        axes[2 * layer, head].set_title(f"layer {layer + 1}, head {head + 1}", fontsize=9)
        shares = [record.share(d, layer=layer, head=head) for d in range(reach + 1)]
        _draw_shares(axes[2 * layer + 1, head], shares)
    figure.suptitle("Attention weights: which past steps (columns) each step (rows) used")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw_map(axis: Any, weights: np.ndarray) -> None:
    axis.imshow(weights, vmin=0.0, vmax=1.0, cmap="magma", interpolation="nearest")
    axis.set_xlabel("step attended to", fontsize=7)
    axis.set_ylabel("step", fontsize=7)
    _count_in_whole_steps(axis.xaxis, axis.yaxis)
    axis.tick_params(labelsize=6)


def _draw_shares(axis: Any, shares: list[float]) -> None:
    axis.bar(range(len(shares)), shares, color="tab:purple")
    axis.set_ylim(0.0, 1.0)
    axis.set_xlabel("steps back", fontsize=7)
    axis.set_ylabel("mean weight", fontsize=7)
    _count_in_whole_steps(axis.xaxis)
    axis.tick_params(labelsize=6)


def _count_in_whole_steps(*axes: Any) -> None:
    """Sets ticks at whole numbers: there is nothing at half a step."""
    for axis in axes:
        axis.get_major_locator().set_params(integer=True)
