"""The comparison runs the example scripts, goes on where it stopped, and reports."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import controls
import pytest
from common import plots
from common.run import summary_line


def finish(folder: Path, value: float, steps: int) -> None:
    """Writes what a finished run leaves."""
    folder.mkdir(parents=True)
    rows = f"1,{steps // 2},1.0,-0.5\n2,{steps},2.0,{value}\n"
    (folder / "progress.csv").write_text("iteration,env_steps,cpu_seconds,return\n" + rows)
    (folder / "log.txt").write_text(summary_line(value, steps, 2.0, bar=0.9) + "\n")


def test_every_command_is_one_that_the_script_accepts(tmp_path: Path) -> None:
    # Each script's own parser reads the options; `--help` at the end stops it before it trains.
    for task in controls.TASKS:
        command = controls.command_of(task, "lstm", 1, tmp_path)
        assert (controls.HERE / command[0]).exists()
        assert "--lstm" in command
        assert "--seed=1" in command
    command = [*controls.command_of("t_maze_100", "gtrxl", 0, tmp_path), "--help"]
    path = str(controls.HERE / command[0])
    done = subprocess.run([sys.executable, path, *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_all_models_get_the_same_budget(tmp_path: Path) -> None:
    for task in controls.TASKS:
        commands = [controls.command_of(task, model, 0, tmp_path) for model in controls.FLAGS]
        flags = {flag for flags in controls.FLAGS.values() for flag in flags}
        assert len({shlex.join(c for c in command if c not in flags) for command in commands}) == 1


def test_a_finished_run_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    finish(tmp_path / "t_maze_10-mlp-0", 0.0, 1000)
    monkeypatch.setattr(subprocess, "call", lambda *args, **kwargs: pytest.fail("it ran again"))
    controls.run("t_maze_10", "mlp", 0, tmp_path)
    assert capsys.readouterr().out == ""


def test_an_unfinished_run_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "t_maze_10-mlp-0"
    folder.mkdir()
    (folder / "progress.csv").write_text("half a run")

    def script(command: list[str], stdout: object, **kwargs: object) -> int:
        assert not (folder / "progress.csv").exists()
        print(summary_line(0.0, 1000, 2.0, bar=0.9), file=stdout)
        return 0

    monkeypatch.setattr(subprocess, "call", script)
    controls.run("t_maze_10", "mlp", 0, tmp_path)
    assert controls.closing_line_of(folder / "log.txt")


def test_a_failed_run_ends_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "call", lambda *args, **kwargs: 1)
    with pytest.raises(SystemExit, match=r"failed with code 1: .*failed\.txt"):
        controls.run("t_maze_10", "mlp", 0, tmp_path)
    assert (tmp_path / "t_maze_10-mlp-0" / "failed.txt").exists()


def test_report(tmp_path: Path) -> None:
    finish(tmp_path / "t_maze_10-attention-0", 0.95, 1000)
    finish(tmp_path / "t_maze_10-attention-1", 0.93, 2000)
    finish(tmp_path / "t_maze_10-mlp-0", 0.02, 9000)
    finish(tmp_path / "repeat_previous-lstm-0", 0.1, 9000)
    (tmp_path / "t_maze_30-lstm-0").mkdir()
    path = controls.report(tmp_path)
    text = path.read_text()
    assert "| attention | 2 of 2 | 1,500 ± 707 | 1.0 × | 2 ± 0 | 0.94 ± 0.01 |" in text
    assert "| attention | 0.97 ± 0.01 | – | – |" not in text  # only lengths that were run
    assert "CartPole" not in text
    images = {path.name for path in tmp_path.glob("*.png")}
    assert {f"![{alt}]({name})" for alt, name in image_links(text)} == {
        "![Return over environment steps](controls_repeat_previous.png)",
        "![Return over environment steps](controls_t_maze_10.png)",
        "![Success against corridor length](controls_t_maze.png)",
    }
    assert {name for _, name in image_links(text)} == images
    assert len(json.loads((tmp_path / "controls.json").read_text())) == 4


def image_links(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.startswith("![")]
    return [tuple(line[2:-1].split("](")) for line in lines]


def test_report_of_nothing(tmp_path: Path) -> None:
    assert controls.report(tmp_path) is None


def test_bands_of_one_and_of_many_seeds(tmp_path: Path) -> None:
    curve = [(1000.0, 0.0), (2000.0, 1.0)]
    curves = {"one": [curve], "many": [curve, curve[1:], [(500.0, 0.5)]]}
    plots.plot_bands(curves, tmp_path / "bands.png", title="test", bar=0.5)
    assert (tmp_path / "bands.png").stat().st_size > 1000
