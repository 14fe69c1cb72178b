"""Each script explains itself, runs from the command line and survives Ctrl-C."""

import ast
import csv
import importlib.util
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tuned_examples"
RunScript = Callable[..., subprocess.CompletedProcess]

SCRIPTS = sorted([*EXAMPLES.glob("*.py"), *(EXAMPLES / "cluster").glob("*.py")])
NAMES = [str(script.relative_to(EXAMPLES)) for script in SCRIPTS]
CLOSING_LINE = r"return=\S+  env_steps=\d+  seconds=[\d.]+  bar=\S+ (not )?reached"

SERVING = "serve_policy.py"  # it trains nothing

# Options that shorten what a script does beside its iterations.
SHORT = {
    "bc_from_memory_policy.py": ["--episodes=20"],
    "iql_from_memory_policy.py": ["--episodes=50", "--expert=expert/checkpoint"],
    "tune_sweep.py": ["--num-samples=1"],
}


def test_scripts_are_there() -> None:
    assert len(SCRIPTS) >= 10


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_docstring_sections(script: Path) -> None:
    doc = ast.get_docstring(ast.parse(script.read_text()))
    assert "\nThis example:\n" in doc
    for title in ("How to run this script", "Results to expect"):
        assert f"\n{title}\n{'-' * len(title)}\n" in doc, f"no section {title!r}"
    assert doc.index("This example:") < doc.index("How to run") < doc.index("Results to expect")


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_help(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    if script.name == "submit.py" and importlib.util.find_spec("aiohttp") is None:
        pytest.skip("submitting jobs needs ray[default]")
    if script.name == SERVING and importlib.util.find_spec("starlette") is None:
        pytest.skip("serving needs ray[serve]")
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(script), run_name="__main__")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "Results to expect" in text
    if script.name not in ("submit.py", "train.py", SERVING):
        assert re.search(r"--num-env-runners \S+\s[^-]*\(default: \d\)", text)


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_each_script_gives_attention_itself(script: Path) -> None:
    """Whoever reads a script sees the call, and the sizes, in it."""
    text = script.read_text()
    if script.name in ("submit.py", SERVING):
        return  # it sends `train.py`, and it acts
    if script.name == "old_stack_ppo.py":
        assert '"custom_model": "attention"' in text
    else:
        assert re.search(r"\buse_attention\(", text)
    assert re.search(r"num_layers|attention_search_space\(", text)


def test_what_scripts_share_is_small() -> None:
    shared = [EXAMPLES / "common" / f"{name}.py" for name in ("__init__", "cli", "run", "plots")]
    assert sum(len(path.read_text().splitlines()) for path in shared) <= 300


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [n for n in NAMES if "/" not in n and n != SERVING])
def test_one_iteration(name: str, run_script: RunScript, tmp_path: Path) -> None:
    if name == "iql_from_memory_policy.py":
        run_script(EXAMPLES / "sac_masked_pendulum.py", "--stop-iters=1", "--results-dir=expert")
    options = ["--stop-iters=1", "--results-dir=out", *SHORT.get(name, [])]
    done = run_script(EXAMPLES / name, *options, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(CLOSING_LINE, done.stdout.splitlines()[-1])
    expected = {"trials.png"} if name == "tune_sweep.py" else {"checkpoint", "learning_curve.png"}
    if name == "ppo_repeat_previous.py":
        expected |= {"attention.png"}
    assert expected <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_end_to_end(run_script: RunScript, tmp_path: Path) -> None:
    script = EXAMPLES / "ppo_t_maze.py"
    options = ["--stop-iters=2", "--num-env-runners=2"]
    done = run_script(script, *options, "--results-dir=out")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(CLOSING_LINE, lines[-1])
    assert sum(line.startswith("return=") for line in lines) == 1
    assert sum(line.startswith("iteration ") for line in lines) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "args.json",
        "checkpoint",
        "learning_curve.png",
        "progress.csv",
    }
    with (tmp_path / "out" / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["env_steps"]) for row in rows] == [4096, 8192]
    assert all(0.0 <= float(row["success"]) <= 1.0 for row in rows)

    # The same run goes on from its checkpoint, and misses the bar.
    resumed = run_script(script, *options, "--as-test", "--restore=out/checkpoint")
    assert resumed.returncode == 1, resumed.stderr
    assert "  env_steps 12,288  " in resumed.stdout


@pytest.mark.slow
def test_interrupt_leaves_a_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "ppo_t_maze.py"), "--stop-reward=2"]
    process = subprocess.Popen(
        [*command, "--num-env-runners=1", "--results-dir=out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("iteration "):
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert f"checkpoint: {tmp_path / 'out' / 'checkpoint'}" in rest
    assert (tmp_path / "out" / "checkpoint" / "rllib_checkpoint.json").exists()
    assert re.fullmatch(CLOSING_LINE, rest.splitlines()[-1])
