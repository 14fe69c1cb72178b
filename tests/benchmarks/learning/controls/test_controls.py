"""The comparison trains on the example scripts, goes on where it stopped, and reports."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import common
import pytest
from common.run import closing_line
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from tests.benchmarks.learning.controls import EXAMPLES, ROOT, plots
from tests.benchmarks.learning.controls.models import MODELS
from tests.benchmarks.learning.controls.one_run import command_of
from tests.benchmarks.learning.controls.report import collect, report
from tests.benchmarks.learning.controls.tasks import TASKS


def finish(folder: Path, value: float, steps: int) -> None:
    """Writes what a finished run leaves."""
    folder.mkdir(parents=True)
    rows = f"1,{steps // 2},1.0,-0.5\n2,{steps},2.0,{value}\n"
    (folder / "progress.csv").write_text("iteration,env_steps,cpu_seconds,return\n" + rows)
    (folder / "log.txt").write_text(closing_line(value, steps, 2.0, bar=0.9) + "\n")


def comparable(config: AlgorithmConfig) -> dict[str, object]:
    """Returns what trains: not who logs, nor how many sample."""
    state = {key: value for key, value in config.to_dict().items() if not callable(value)}
    for key in ("callbacks_on_episode_end", "num_env_runners", "num_envs_per_env_runner"):
        state.pop(key, None)
    return state


@pytest.mark.parametrize("name", TASKS)
def test_attention_is_that_of_the_script(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = []
    monkeypatch.setattr(common, "run_example", lambda config, args, **keys: configs.append(config))
    task = TASKS[name]
    monkeypatch.setattr(sys, "argv", [task.script, *task.options])
    runpy.run_path(str(EXAMPLES / f"{task.script}.py"), run_name="__main__")
    ours = task.config("attention", task.args(seed=0, folder=tmp_path))
    assert comparable(ours) == comparable(configs[0])


@pytest.mark.parametrize("model", ["lstm", "gtrxl", "mlp"])
def test_models_differ_in_nothing_but_the_model(model: str, tmp_path: Path) -> None:
    task = TASKS["repeat_previous"]
    args = task.args(seed=1, folder=tmp_path)
    config, attention = task.config(model, args), task.config("attention", args)
    assert config.enable_rl_module_and_learner is (model != "gtrxl")
    for key in ("lr", "gamma", "num_epochs", "minibatch_size", "total_train_batch_size", "seed"):
        assert getattr(config, key) == getattr(attention, key)
    assert config.num_envs_per_env_runner == attention.num_envs_per_env_runner == 16
    if model == "lstm":
        assert config.model_config["lstm_cell_size"] == 64
        assert config.model_config["max_seq_len"] == 32
        assert config.model_config["vf_share_layers"]
    if model == "gtrxl":
        assert config.model["attention_memory_inference"] == 15
        assert config.model["vf_share_layers"]
    if model == "mlp":
        assert config.model_config["fcnet_hiddens"] == [64, 64, 64]


def test_the_command_of_a_run_is_accepted(tmp_path: Path) -> None:
    command = [*command_of("t_maze_100", "gtrxl", 0, tmp_path), "--help"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_run_trains_and_is_read_back(model: str, tmp_path: Path) -> None:
    folder = tmp_path / f"t_maze_10-{model}-0"
    command = [*command_of("t_maze_10", model, 0, folder), "--stop-timesteps=1"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "log.txt").write_text(done.stdout)
    (outcome,) = collect(tmp_path)
    assert (outcome.model, outcome.env_steps, outcome.reached) == (model, 4096, False)


def test_report(tmp_path: Path) -> None:
    finish(tmp_path / "t_maze_10-attention-0", 0.95, 1000)
    finish(tmp_path / "t_maze_10-attention-1", 0.93, 2000)
    finish(tmp_path / "t_maze_10-mlp-0", 0.02, 9000)
    finish(tmp_path / "repeat_previous-lstm-0", 0.1, 9000)
    (tmp_path / "t_maze_30-lstm-0").mkdir()
    path = report(tmp_path)
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
    assert report(tmp_path) is None


def test_bands_of_one_and_of_many_seeds(tmp_path: Path) -> None:
    curve = [(1000.0, 0.0), (2000.0, 1.0)]
    curves = {"one": [curve], "many": [curve, curve[1:], [(500.0, 0.5)]]}
    plots.plot_bands(curves, tmp_path / "bands.png", title="test", bar=0.5)
    assert (tmp_path / "bands.png").stat().st_size > 1000
