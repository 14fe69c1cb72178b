"""Draws the pictures of `docs/concepts.md` from the package's own masks, rings and numbers.

`python docs/drawings/draw.py` writes them beside this script; `--out` writes them elsewhere.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rllib_attention import AttentionConfig
from rllib_attention.nn import RecencyPosition, Rings, row_mask

# Text stays text, and the same drawing is the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rllib_attention"})

PLAIN = AttentionConfig(num_layers=2, window=4)
DILATED = PLAIN.replace(dilation=4)
CHUNK, RUN = 8, 4
NOW, PAST, PALE, INK = "#3f51b5", "#9fa8da", "#eeeeee", "#333333"


def layer_mask(config: AttentionConfig, layer: int, num_steps: int) -> np.ndarray:
    """Returns which step may attend to which in a layer, (queries, keys), from the real mask."""
    steps = torch.arange(num_steps)
    valid = torch.ones(1, num_steps, dtype=torch.bool)
    mask = row_mask(valid, steps, steps, config.window, config.dilation**layer)
    return (mask.bias[0, 0] == 0).numpy()


def seen_by(config: AttentionConfig, step: int) -> list[set[int]]:
    """Returns the steps that the output at a step depends on: at the top first, then below."""
    seen = [{step}]
    for layer in reversed(range(config.num_layers)):
        allowed = layer_mask(config, layer, step + 1)
        seen.append({int(key) for query in seen[-1] for key in np.flatnonzero(allowed[query])})
    return seen


def chunk_starts(num_steps: int) -> range:
    """Returns where the training chunks of an episode begin."""
    return range(0, num_steps, CHUNK)


def ring_contents(window: int, stride: int, step: int) -> np.ndarray:
    """Returns the step that each entry of a cache's rings holds after a step, -1 for none."""
    device, slot = torch.device("cpu"), np.zeros(1, np.int64)
    rings = Rings(
        num_slots=1,
        num_heads=1,
        window=window,
        stride=stride,
        device=device,
        dtype=torch.float32,
    )
    held = np.full(stride * window, -1)
    for past in range(step + 1):
        held[rings.entries(slot, np.array([past])).numpy()] = past
    return held.reshape(stride, window)


def recency_weights(config: AttentionConfig) -> np.ndarray:
    """Returns each head's weights by distance where all contents score alike, (H, W)."""
    position = RecencyPosition(config.num_heads, config.head_size)
    distance = torch.arange(config.window).view(1, -1)
    bias = position.fixed_bias(distance)
    assert bias is not None
    return bias.softmax(-1)[..., 0, :].numpy()


def draw_window(figure: Figure) -> None:
    """Draws the masks of the lowest layer and of the one above it, plain and dilated."""
    cases = [
        (PLAIN, 1, "any layer, dilation=1"),
        (DILATED, 1, f"layer 1, dilation={DILATED.dilation}"),
    ]
    for number, (config, layer, title) in enumerate(cases):
        axes = figure.add_subplot(1, len(cases), number + 1)
        mask = layer_mask(config, layer, 14)
        axes.pcolormesh(mask, cmap=_colours(), edgecolors="white", linewidth=1)
        axes.invert_yaxis()
        axes.set(aspect="equal", title=title, xlabel="attends to step", ylabel="step")
        axes.set_xticks(np.arange(14) + 0.5, range(14), fontsize=7)
        axes.set_yticks(np.arange(14) + 0.5, range(14), fontsize=7)


def draw_context(figure: Figure, config: AttentionConfig = PLAIN) -> None:
    """Draws which steps the output at the last step depends on, layer by layer."""
    axes = figure.add_subplot()
    last = config.context_len + 3
    seen = seen_by(config, last)
    for level, queries in enumerate(seen[:-1]):
        layer = config.num_layers - 1 - level
        allowed = layer_mask(config, layer, last + 1)
        for query in queries:
            for key in np.flatnonzero(allowed[query]):
                axes.plot([key, query], [layer, layer + 1], color=PAST, linewidth=0.8, zorder=1)
    for level, chosen in enumerate(reversed(seen)):
        colours = [PALE if step not in chosen else PAST for step in range(last)] + [NOW]
        axes.scatter(range(last + 1), [level] * (last + 1), s=90, c=colours, zorder=2)
    names = ["tokens", *(f"after layer {layer}" for layer in range(config.num_layers))]
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(last + 1), [f"t−{last - step}" for step in range(last)] + ["t"])
    axes.tick_params(length=0, labelsize=8)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(
        f"num_layers={config.num_layers}, window={config.window}, dilation={config.dilation}: "
        f"context of {config.context_len} steps, receptive field of {config.receptive_field}",
        fontsize=10,
    )


def draw_dilation(figure: Figure) -> None:
    """Draws the same for a dilated model."""
    draw_context(figure, DILATED)


def draw_chunks(figure: Figure) -> None:
    """Draws the training chunks of an episode, each with its context."""
    axes, num_steps = figure.add_subplot(), 3 * CHUNK - 3
    starts = chunk_starts(num_steps)
    for row, start in enumerate(starts):
        stop = min(start + CHUNK, num_steps)
        for step in range(num_steps):
            is_context = start - PLAIN.context_len <= step < start
            colour = NOW if start <= step < stop else PAST if is_context else PALE
            _cell(axes, step, -row, colour)
        context = min(start, PLAIN.context_len)
        text = f"chunk {row}: {context} + {stop - start} tokens"
        axes.text(num_steps + 0.4, 0.5 - row, text, va="center", fontsize=9)
    _finish(axes, num_steps + 9, len(starts))
    title = f"context_len={PLAIN.context_len}, max_seq_len={CHUNK}: "
    axes.set_title(title + "light steps are context, dark ones are trained on", fontsize=10)


def draw_runs(figure: Figure) -> None:
    """Draws the tokens of a replayed run beside those of as many single transitions."""
    axes, context = figure.add_subplot(), PLAIN.context_len
    for row in range(RUN):
        for step in range(context + RUN):
            is_past = row <= step < row + context
            colour = NOW if step == row + context else PAST if is_past else PALE
            _cell(axes, step, -row, colour)
    for step in range(context + RUN):
        _cell(axes, step, -RUN - 1, NOW if step >= context else PAST)
    right = context + RUN + 0.4
    single = f"{RUN} single transitions: {RUN * (context + 1)} tokens"
    axes.text(right, 1 - RUN / 2, single, va="center", fontsize=9)
    axes.text(right, -RUN - 0.5, f"a run of {RUN}: {context + RUN} tokens", va="center", fontsize=9)
    _finish(axes, right + 9, RUN + 2)
    axes.set_title(f"context_len={context}, max_seq_len={RUN}", fontsize=10)


def draw_cache(figure: Figure) -> None:
    """Draws which steps a layer's cache holds, step after step."""
    axes, window, stride, rows = figure.add_subplot(), PLAIN.window, 2, 5
    for row in range(rows):
        step = 5 + row
        axes.text(-0.4, 0.5 - row, f"after step {step}", ha="right", va="center", fontsize=9)
        for layer, left in enumerate([0.0, window + 1.0]):
            config = PLAIN.replace(dilation=stride)
            read = np.flatnonzero(layer_mask(config, layer, step + 1)[step])
            for ring, entries in enumerate(ring_contents(window, stride**layer, step)):
                for entry, held in enumerate(entries):
                    x = left + ring * (window + 0.5) + entry
                    colour = NOW if held == step else PAST if held in read else PALE
                    _cell(axes, x, -row, colour, "" if held < 0 else str(held))
    axes.text(window / 2, 1.3, "stride 1: one ring", ha="center", fontsize=9)
    axes.text(2 * window + 1.25, 1.3, f"stride {stride}: {stride} rings", ha="center", fontsize=9)
    _finish(axes, 3 * window + 2, rows, left=-4)
    axes.set_ylim(-rows + 0.8, 2)


def draw_recency(figure: Figure) -> None:
    """Draws how a fresh model's heads weigh the past with `position="recency"`."""
    config = AttentionConfig()
    axes = figure.add_subplot()
    for head, weights in enumerate(recency_weights(config)):
        axes.plot(weights, marker=".", label=f"head {head + 1}")
    axes.set(xlabel="steps back", ylabel="weight", yscale="log", ylim=(1e-4, 1.2))
    axes.set_title(f"num_heads={config.num_heads}, window={config.window}", fontsize=10)
    axes.legend(fontsize=8)


DRAWINGS: dict[str, tuple[Callable[[Figure], None], tuple[float, float]]] = {
    "window": (draw_window, (7.0, 3.7)),
    "context": (draw_context, (7.0, 2.4)),
    "dilation": (draw_dilation, (9.0, 2.6)),
    "chunks": (draw_chunks, (8.5, 1.8)),
    "runs": (draw_runs, (6.5, 2.4)),
    "cache": (draw_cache, (7.0, 2.6)),
    "recency": (draw_recency, (6.0, 3.0)),
}


def draw_all(out: Path) -> None:
    """Writes every drawing as SVG."""
    out.mkdir(parents=True, exist_ok=True)
    for name, (draw, size) in DRAWINGS.items():
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(out / f"{name}.svg", metadata={"Date": None})


def _cell(axes: Axes, x: float, y: float, colour: str, text: str = "") -> None:
    axes.fill([x, x + 0.92, x + 0.92, x], [y, y, y + 0.92, y + 0.92], color=colour)
    ink = "white" if colour == NOW else INK
    axes.text(x + 0.46, y + 0.44, text, ha="center", va="center", fontsize=8, color=ink)


def _finish(axes: Axes, width: float, rows: int, left: float = -0.5) -> None:
    axes.set(xlim=(left, width), ylim=(-rows + 0.8, 1.2), aspect="equal")
    axes.axis("off")


def _colours() -> matplotlib.colors.Colormap:
    return matplotlib.colors.ListedColormap([PALE, NOW])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    draw_all(parser.parse_args().out)
