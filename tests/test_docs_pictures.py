"""The pictures of `docs/concepts.md` and the run of the tutorial: from code, and as committed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from rllib_attention import AttentionConfig
from rllib_attention.nn import KVCache

DOCS = Path(__file__).parents[1] / "docs"
TUTORIAL = DOCS / "tutorial"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw = load(DOCS / "drawings" / "draw.py")


def words(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", svg.read_text())


def test_committed_drawings_are_those_of_the_script(tmp_path):
    draw.draw_all(tmp_path)
    for name in draw.DRAWINGS:
        assert words(tmp_path / f"{name}.svg")
        assert words(tmp_path / f"{name}.svg") == words(DOCS / "drawings" / f"{name}.svg")


@pytest.mark.parametrize(
    ("layers", "window", "dilation"), [(1, 5, 1), (2, 4, 1), (2, 4, 4), (3, 3, 2)]
)
def test_masks_reach_as_far_as_the_config_says(layers, window, dilation):
    config = AttentionConfig(num_layers=layers, window=window, dilation=dilation)
    last = config.context_len + 5
    seen = draw.seen_by(config, last)[-1]
    assert min(seen) == last - config.context_len
    assert len(seen) <= config.receptive_field
    if dilation <= window:
        assert len(seen) == config.receptive_field


def test_rings_hold_the_steps_that_a_layer_reads():
    # For a window of 3 and a stride of 2, as the docstring of `Rings` has it.
    held = draw.ring_contents(window=3, stride=2, step=9)
    assert held.tolist() == [[6, 8, 4], [7, 9, 5]]


def test_recency_falls_in_all_heads_but_the_last():
    weights = draw.recency_weights(AttentionConfig())
    assert np.allclose(weights.sum(axis=1), 1.0)
    assert (np.diff(weights[:-1], axis=1) < 0).all()
    assert np.allclose(weights[-1], 1 / AttentionConfig().window)


def rows_of(page: str, start: str) -> list[list[str]]:
    lines = (DOCS / page).read_text().partition(start)[2].partition("\n\n")[0].split("\n")
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def number(text: str) -> float:
    return float(text.replace(",", ""))


CHOICES = rows_of("choosing.md", "| what counts lies")


@pytest.mark.parametrize("row", CHOICES, ids=lambda row: row[1])
def test_choosing_says_what_the_package_computes(row):
    options = re.findall(r"(\w+)=(\d+)", row[1])
    config = AttentionConfig(**{name: int(value) for name, value in options})
    cache = KVCache(
        num_slots=1,
        strides=[config.dilation**layer for layer in range(config.num_layers)],
        num_heads=config.num_heads,
        head_size=config.head_size,
        window=config.window,
        device=torch.device("cpu"),
        dtype=torch.float32,
        distance_bias=None,
    )
    cached = sum(layer.numel() for layer in cache.layers)
    context = config.context_len
    expected = [context, config.window, cached, 2]
    assert [number(cell) for cell in row[2:]] == expected


def test_performance_quotes_the_benchmark():
    measured = (DOCS / "benchmark.md").read_text()
    for _, *figures in rows_of("performance.md", "| change | rollout"):
        for figure in filter(None, figures):
            assert f"| {figure} (" in measured


def algorithm_rows() -> list:
    found = []
    for page in sorted((DOCS / "algorithms").glob("*.md")):
        for line in page.read_text().split("\n"):
            for script in re.findall(r"\| `(tuned_examples/\w+\.py)` \|$", line):
                found.append(pytest.param(line, script, id=line.split("|")[1].strip()))
    return found


@pytest.mark.parametrize(("line", "script"), algorithm_rows())
def test_results_of_algorithms_are_those_of_the_scripts(line, script):
    text = " ".join((DOCS.parent / script).read_text().split())
    figures = re.findall(r"-?\d[\d,]*\.?\d*", " | ".join(line.split("|")[3:-2]))
    assert figures
    assert [figure for figure in figures if figure not in text] == []


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def test_tutorial_shows_the_code_that_ran():
    page, script = TUTORIAL / "index.md", (TUTORIAL / "hidden_velocity.py").read_text()
    shown = blocks(page.read_text())
    assert len(shown) > 5
    assert [block for block in shown if block not in script] == []


def test_tutorial_says_what_came_out():
    page = (TUTORIAL / "index.md").read_text()
    results = json.loads((TUTORIAL / "results.json").read_text())
    share = results["share_by_lag"]
    for row in [
        f"| env steps | {results['env_steps']:,} | as many |",
        f"| mean return at the end | {results['return']} | {results['mlp_return']} |",
        f"| with its past | {results['policy_return']} |",
        f"| without it | {results['forgetful_return']} |",
        f"| weight on the step itself | {share['0'][0]} | {share['0'][1]} |",
        f"| weight on the step before | {share['1'][0]} | {share['1'][1]} |",
        f"| mean lag, in steps | {results['mean_lag'][0]} | {results['mean_lag'][1]} |",
        f"| entropy, in nats | {results['entropy'][0]} | {results['entropy'][1]} |",
    ]:
        assert row in page
    assert f"{results['env_steps']:,} env steps and {results['cpu_seconds']} CPU seconds" in page
    assert f"never got above {results['mlp_best']}" in page
    assert f"see {results['context_len']} steps back" in page
    assert f"episode of {results['steps_recorded']} steps" in page


@pytest.mark.slow
def test_tutorial_runs(tmp_path):
    command = [sys.executable, str(TUTORIAL / "hidden_velocity.py"), "--out", str(tmp_path)]
    options = ["--bar", "1", "--max-steps", "1", "--episodes", "1"]
    environ = os.environ | {"PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(
        command + options, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "results.json").read_text())
    assert made.keys() == json.loads((TUTORIAL / "results.json").read_text()).keys()
    assert {path.name for path in tmp_path.glob("*.png")} == {"attention.png", "learning_curve.png"}
