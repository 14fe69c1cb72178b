"""The command line, the loop, the closing line, the progress file and the plot of the examples."""

import argparse
import csv
import json
import math
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from common import cli, plots
from common import run as run_module


def parse(*options: str) -> argparse.Namespace:
    parser = cli.example_parser("doc", stop_reward=0.5, stop_timesteps=1000)
    return parser.parse_args(options)


class Algorithm:
    """Stands for an algorithm; `returns` are those of its iterations of 100 steps."""

    def __init__(self, returns: list[float | None], interrupt_at: int | None = None) -> None:
        self.config = SimpleNamespace(enable_rl_module_and_learner=True)
        self.iteration, self.stopped = 0, False
        self._returns, self._interrupt_at = returns, interrupt_at

    def train(self) -> dict[str, object]:
        value = self._returns[self.iteration]
        self.iteration += 1
        if self.iteration == self._interrupt_at:
            signal.raise_signal(signal.SIGINT)
        return {
            "training_iteration": self.iteration,
            "num_env_steps_sampled_lifetime": 100 * self.iteration,
            "env_runners": {} if value is None else {"episode_return_mean": value, "wins": 0.25},
        }

    def save_to_path(self, path: str) -> None:
        Path(path).mkdir()

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the loop around an algorithm that does not train."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["somewhere/ppo_task.py"])
    monkeypatch.setattr(run_module, "start_ray", lambda args: None)
    monkeypatch.setattr(run_module.ray, "shutdown", lambda: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(algo: Algorithm, *options: str, **keys: object) -> None:
        monkeypatch.setattr(run_module, "_build", lambda config, args: algo)
        run_module.run_example(None, parse("--results-dir=out", *options), **keys)
        assert algo.stopped

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_defaults() -> None:
    args = parse()
    assert (args.num_env_runners, args.num_learners) == (0, 0)
    assert (args.stop_reward, args.stop_timesteps, args.stop_iters) == (0.5, 1000, None)


def test_help_names_defaults() -> None:
    parser = cli.example_parser("The docstring.", stop_reward=0.5, stop_timesteps=99)
    text = parser.format_help()
    assert "The docstring." in text
    assert "(default: 99)" in text
    assert "default: None" not in text
    assert "default: False" not in text


def test_missing_extra() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.require("no_such_package_at_all", "The task")
    assert caught.value.code == (
        "The task needs the package 'no_such_package_at_all': "
        'pip install "rllib-attention[examples]"'
    )


def test_broken_extra_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_extra.py").write_text("import no_such_dependency_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency_of_it"):
        cli.require("broken_extra", "The task")


def test_a_run_ends_at_the_bar_and_says_so(
    run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    called = []
    run(Algorithm([None, 0.25, 0.5]), at_end=lambda algo, folder: called.append(folder))
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"return=0\.500  env_steps=300  seconds=\d+\.\d  bar=0\.5 reached", lines[-1]
    )
    assert called == [tmp_path / "out"]
    shown = [line for line in lines if line.startswith("iteration ")]
    assert len(shown) == 3
    assert shown[1].startswith("iteration 2  env_steps 200  return 0.250  seconds ")
    assert f"checkpoint: {tmp_path / 'out' / 'checkpoint'}" in lines
    with (tmp_path / "out" / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["env_steps"]) for row in rows] == [100, 200, 300]
    assert [row["return"] for row in rows] == ["nan", "0.25", "0.5"]
    assert set(rows[0]) == {"iteration", "env_steps", "return", "seconds", "cpu_seconds"}
    assert json.loads((tmp_path / "out" / "args.json").read_text())["stop_reward"] == 0.5


@pytest.mark.parametrize(
    ("options", "steps"), [(["--stop-timesteps=200"], 200), (["--stop-iters=3"], 300)]
)
def test_a_run_ends_without_the_bar(
    run, options: list[str], steps: int, capsys: pytest.CaptureFixture
) -> None:
    run(Algorithm([math.nan, 0.49, 0.49, 0.5]), *options)
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"env_steps={steps}  " in last
    assert last.endswith("bar=0.5 not reached")


def test_as_test(run) -> None:
    run(Algorithm([0.5]), "--as-test")
    with pytest.raises(SystemExit) as caught:
        run(Algorithm([0.4]), "--as-test", "--stop-iters=1", "--results-dir=other")
    assert caught.value.code == 1


def test_further_columns(run, tmp_path: Path) -> None:
    run(Algorithm([0.5]), success="env_runners/wins")
    with (tmp_path / "out" / "progress.csv").open() as file:
        assert next(csv.DictReader(file))["success"] == "0.25"


def test_ctrl_c_ends_the_iteration_and_saves(
    run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    called = []
    with pytest.raises(SystemExit) as caught:
        run(Algorithm([0.0, 0.1, 0.2], 2), at_end=lambda *args: called.append(args))
    assert caught.value.code == 130
    assert not called
    assert (tmp_path / "out" / "checkpoint").is_dir()
    out = capsys.readouterr().out
    assert "stopping after this iteration, then saving" in out
    assert out.splitlines()[-1].startswith("return=0.100  env_steps=200  ")


def test_results_dir_has_the_name_of_the_script_and_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["somewhere/ppo_task.py"])
    args = parse()
    folder = run_module.make_results_dir(args)
    assert folder.parent == tmp_path / "results"
    assert re.fullmatch(r"ppo_task-\d{8}-\d{6}", folder.name)
    # A script that writes there before it trains is given the same folder again.
    assert run_module.make_results_dir(args) == folder


def test_results_dir_never_mixes_two_runs(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").touch()
    with pytest.raises(SystemExit, match="already holds a run"):
        run_module.make_results_dir(parse(f"--results-dir={tmp_path}"))


@pytest.mark.parametrize(
    ("key", "value"), [("a/b", 2.0), ("c", 1.0), ("a/c", math.nan), ("c/d", math.nan)]
)
def test_metric(key: str, value: float) -> None:
    found = run_module.metric({"a": {"b": 2}, "c": 1}, key)
    assert found == pytest.approx(value, nan_ok=True)


def test_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = {"one": [(1, math.nan), (2, 0.5)], "two": [(1, 0.2)], "none": []}
    plots.plot_curves(curves, tmp_path / "curve.png", bar=0.4)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_no_curve_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    plots.plot_curves({}, tmp_path / "curve.png", bar=0.4)
    assert "matplotlib is missing: pip install" in capsys.readouterr().out
    assert not (tmp_path / "curve.png").exists()
