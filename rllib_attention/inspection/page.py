"""One HTML page to look around in records, which needs nothing but itself."""

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from rllib_attention.inspection.record import AttentionRecord

_ASSETS = resources.files("rllib_attention.inspection") / "assets"
# Of a longer episode, every n-th frame is kept; frames are made this wide.
_MAX_FRAMES = 1000
_FRAME_WIDTH = 160


def write_page(
    path: Path,
    title: str,
    records: Sequence[AttentionRecord],
    frames: Sequence[Sequence[np.ndarray]],
) -> Path:
    """Writes the page.

    Args:
        path: The file.
        title: What the page is about.
        records: The episodes.
        frames: What each episode's environment rendered at each step, (height, width, 3) of 8 bits
            each; nothing where it renders nothing.

    Returns:
        The path.

    Raises:
        ImportError: If there are frames, and pillow is not installed.
    """
    pairs = enumerate(zip(records, frames, strict=True))
    episodes = [_episode(number, record, seen) for number, (record, seen) in pairs]
    path.write_text(
        Template(_asset("page.html")).substitute(
            title=html.escape(title),
            uplot_css=_asset("uPlot.min.css"),
            css=_asset("page.css"),
            data=_json({"episodes": episodes}),
            uplot_js=_asset("uPlot.iife.min.js"),
            js=_asset("page.js"),
        ),
        encoding="utf-8",
    )
    return path


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """Returns JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _episode(number: int, record: AttentionRecord, frames: Sequence[np.ndarray]) -> dict[str, Any]:
    every = max(1, -(-len(frames) // _MAX_FRAMES))
    weights = (record.weights * 65535).round().astype("<u2")  # as `page.js` reads them
    total = float(record.rewards.sum())
    return {
        "name": f"{number + 1}: {len(record)} steps, return {total:.4g}",
        "start": record.start,
        "num_past": record.num_past,
        "length": len(record),
        "heads": record.num_heads,
        "window": record.weights.shape[-1],
        "strides": record.strides.tolist(),
        "rewards": np.nan_to_num(record.rewards).tolist(),
        "actions": [
            np.array2string(np.asarray(a), precision=3, threshold=8) for a in record.actions
        ],
        "weights": base64.b64encode(weights.tobytes()).decode(),
        "frames": [_picture(frame) for frame in frames[::every]],
        "frame_every": every,
    }


def _picture(frame: np.ndarray) -> str:
    """Returns a frame as the address of a picture that holds its own data."""
    from PIL import Image

    image = Image.fromarray(frame.astype(np.uint8))
    height = max(1, round(image.height * _FRAME_WIDTH / image.width))
    buffer = io.BytesIO()
    image.resize((_FRAME_WIDTH, height)).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
