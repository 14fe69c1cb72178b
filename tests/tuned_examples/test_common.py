"""The command line, the closing line, the progress file and the plots of the examples."""

import argparse
import csv
import math
import re
import sys
from pathlib import Path

import pytest
from common import cli, plots
from common import run as run_module
from common.run import Run


def parse(*options: str, **defaults: object) -> argparse.Namespace:
    return cli.example_parser("doc", **defaults).parse_args(options)


def make_run(tmp_path: Path, *options: str, **keys: object) -> Run:
    return Run(parse(*options, stop_timesteps=1000), tmp_path, **keys)


def result(iteration: int, steps: int, value: float | None) -> dict[str, object]:
    runners = {} if value is None else {"episode_return_mean": value, "success_rate": 0.5}
    return {
        "training_iteration": iteration,
        "num_env_steps_sampled_lifetime": steps,
        "env_runners": runners,
    }


def test_defaults() -> None:
    args = parse(stop_reward=3.5)
    assert (args.num_env_runners, args.num_learners, args.stop_reward) == (0, 0, 3.5)
    assert args.checkpoint_at_end
    assert args.model == "attention"


@pytest.mark.parametrize(
    ("flag", "model"), [("--no-attention", "mlp"), ("--lstm", "lstm"), ("--gtrxl", "gtrxl")]
)
def test_controls(flag: str, model: str) -> None:
    assert parse(flag).model == model


def test_controls_exclude_each_other(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse("--lstm", "--no-attention")
    assert "not allowed with argument" in capsys.readouterr().err


def test_controls_that_make_no_sense_are_not_offered(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse("--gtrxl", controls=("mlp",))
    assert "unrecognized arguments: --gtrxl" in capsys.readouterr().err


def test_mistaken_defaults_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("no option for the default(s) ['windwo']")):
        cli.example_parser("doc", windwo=3)
    with pytest.raises(ValueError, match=re.escape("got ['gru']")):
        cli.example_parser("doc", controls=("gru",))


def test_help_names_defaults() -> None:
    text = cli.example_parser("The docstring.", window=99).format_help()
    assert "The docstring." in text
    assert "(default: 99)" in text
    assert "(default: attention)" not in text
    assert "default: None" not in text


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


def test_closing_line(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--stop-reward=0.5")
    assert run_module.closing_line(run).endswith("bar=0.5 not reached")
    run.rows.append({"return": 0.25, "env_steps": 800, "seconds": 12.34})
    expected = "return=0.250  env_steps=800  seconds=12.3  bar=0.5 not reached"
    assert run_module.closing_line(run) == expected
    run.rows[-1]["return"] = 0.5
    assert run_module.closing_line(run).endswith("bar=0.5 reached")


def test_closing_line_without_a_bar(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.rows.append({"return": 0.25, "env_steps": 800, "seconds": 12.34})
    assert run_module.closing_line(run) == "return=0.250  env_steps=800  seconds=12.3"


@pytest.mark.parametrize(
    ("options", "steps", "value", "finished"),
    [
        ((), 999, 0.0, False),
        ((), 1000, 0.0, True),
        (("--stop-reward=0.5",), 100, 0.4, False),
        (("--stop-reward=0.5",), 100, 0.5, True),
        (("--stop-reward=0.5",), 100, math.nan, False),
        (("--stop-iters=1",), 100, 0.0, True),
    ],
)
def test_when_a_run_is_finished(
    tmp_path: Path, options: tuple[str, ...], steps: int, value: float, finished: bool
) -> None:
    run = make_run(tmp_path, *options)
    assert not run.finished
    run.rows.append({"return": value, "env_steps": steps, "seconds": 1.0})
    assert run.finished is finished


def test_progress(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = make_run(tmp_path, extra={"success": "env_runners/success_rate"})
    run_module.record_iteration(run, result(1, 100, None))
    run_module.record_iteration(run, result(2, 300, 0.25))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "return      nan" in lines[0]
    assert re.search(
        r"return    0\.250  success 0\.500  env_steps +300/1,000 .* left \d+m\d\ds", lines[1]
    )
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["env_steps"] for row in rows] == ["100", "300"]
    assert [row["return"] for row in rows] == ["nan", "0.25"]


def test_results_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["somewhere/ppo_task.py"])
    folder = run_module.make_results_dir(parse())
    assert folder.parent == tmp_path / "results"
    assert re.fullmatch(r"ppo_task-\d{8}-\d{6}", folder.name)
    assert '"model": "attention"' in (folder / "args.json").read_text()


def test_results_dir_never_mixes_two_runs(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").touch()
    with pytest.raises(SystemExit, match="already holds a run"):
        run_module.make_results_dir(parse(f"--results-dir={tmp_path}"))


def test_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"env_steps": 1, "return": math.nan}, {"env_steps": 2, "return": 0.5}]
    plots.plot_curve(rows, tmp_path / "curve.png", title="a run", bar=0.4)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_differences_of_trials() -> None:
    from tune_sweep import differences

    configs = [{"lr": lr, "model": {"window": 8, "dim": dim}} for lr, dim in [(1, 2), (1, 3)]]
    assert differences(configs) == [{"dim": 2}, {"dim": 3}]
