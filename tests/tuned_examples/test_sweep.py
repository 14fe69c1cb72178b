"""The sweep: its table, and going on after it was killed."""

import enum
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tune_sweep
from ray import tune

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tuned_examples" / "tune_sweep.py"
OPTIONS = ["--num-samples=3", "--max-concurrent-trials=1", "--stop-iters=2", "--checkpoint-every=1"]
RunScript = Callable[..., subprocess.CompletedProcess]


def test_all_that_is_searched_is_in_the_config() -> None:
    args = tune_sweep.parser.parse_args([])
    config = tune_sweep.make_config(args).to_dict()
    searched = {
        path.rpartition("/")[2]
        for path, value in flat(config).items()
        if isinstance(value, tune.search.sample.Domain)
    }
    attention = {"num_layers", "window", "num_heads", "dim", "lr_factor", "token_size"}
    assert searched == {"lr", *attention}


def flat(config: dict, name: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in config.items():
        path = f"{name}/{key}"
        found |= flat(value, path) if isinstance(value, dict) else {path: value}
    return found


def test_only_what_differs_is_shown() -> None:
    configs = [{"lr": 1e-3, "model": {"dim": 32, "window": 8}}, {"lr": 1e-3, "model": {"dim": 64}}]
    assert tune_sweep.differences(configs) == [
        {"dim": 32, "window": 8},
        {"dim": 64, "window": None},
    ]


def test_an_enum_is_its_value() -> None:
    class Kind(str, enum.Enum):
        ONE = "one"

    assert tune_sweep.differences([{"kind": Kind.ONE}, {"kind": "one"}]) == [{}, {}]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on(run_script: RunScript, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *OPTIONS, "--results-dir=out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    # The first trial has ended when the second one reports; nothing is closed in good order.
    seen: set[str] = set()
    for line in process.stdout:
        seen |= set(re.findall(r"^trial (\S+)", line))
        if len(seen) == 2:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = run_script(SCRIPT, *OPTIONS, "--resume=out", timeout=600)
    assert done.returncode == 0, done.stderr
    again = re.findall(r"^trial (\S+)", done.stdout, re.MULTILINE)
    finished = min(seen, key=again.count)
    assert finished not in again, "a finished trial ran again"
    table = (tmp_path / "out" / "trials.txt").read_text().splitlines()
    assert len(table) == 1 + 3
    assert (tmp_path / "out" / "trials.png").exists()
    assert re.match(r"return=\S+  env_steps=\d+", done.stdout.splitlines()[-1])
