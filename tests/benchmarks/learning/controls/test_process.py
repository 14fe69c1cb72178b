"""A run is done once, anew if it was cut short, and loudly if it fails."""

import subprocess
from pathlib import Path

import pytest
from common.run import closing_line

from tests.benchmarks.learning.controls.outcomes import closing_line_of
from tests.benchmarks.learning.controls.process import run_once


def test_a_finished_run_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text(closing_line(0.0, 1000, 2.0, bar=0.9) + "\n")
    monkeypatch.setattr(subprocess, "call", lambda *args, **kwargs: pytest.fail("it ran again"))
    run_once(["-m", "anything"], tmp_path / "run")
    assert capsys.readouterr().out == ""


def test_an_unfinished_run_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "progress.csv").write_text("half a run")

    def script(command: list[str], stdout: object, **kwargs: object) -> int:
        assert not (folder / "progress.csv").exists()
        print(closing_line(0.0, 1000, 2.0, bar=0.9), file=stdout)
        return 0

    monkeypatch.setattr(subprocess, "call", script)
    run_once(["-m", "anything"], tmp_path / "run")
    assert closing_line_of(folder / "log.txt")


def test_a_failed_run_ends_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "call", lambda *args, **kwargs: 1)
    with pytest.raises(SystemExit, match=r"failed with code 1: .*failed\.txt"):
        run_once(["-m", "anything"], tmp_path / "run")
    assert (tmp_path / "run" / "failed.txt").exists()
