"""The recommended settings are those of the README, and their table says what was measured."""

import re

import pytest

from tests.benchmarks.learning.controls import ROOT
from tests.benchmarks.learning.controls.outcomes import Outcome
from tests.benchmarks.learning.controls.recommended import ENVS, SETTINGS, make_config, table


def readme_example() -> dict[str, object]:
    text = (ROOT / "README.md").read_text()
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    return names


def test_the_readme_shows_what_was_measured() -> None:
    shown = readme_example()["config"]
    measured = make_config("t_maze_10", SETTINGS["recommended"])
    for key in ("lr", "minibatch_size", "num_epochs", "total_train_batch_size", "gamma"):
        assert getattr(shown, key) == getattr(measured, key), key
    assert shown.num_envs_per_env_runner == measured.num_envs_per_env_runner
    assert shown.model_config["attention"] == measured.model_config["attention"]
    for key, value in SETTINGS["recommended"].model.items():
        assert shown.model_config[key] == measured.model_config[key] == value


@pytest.mark.parametrize("task", ENVS)
def test_every_task_can_be_had(task: str) -> None:
    for settings in SETTINGS.values():
        config = make_config(task, settings)
        assert config.env == task
        assert config.lr == settings.training.get("lr", 5e-5)


def test_table() -> None:
    runs = [
        Outcome("t_maze_10", "defaults", 0, 0.9, 16000, 120.0, True),
        Outcome("t_maze_10", "defaults", 1, 0.9, 20000, 130.0, True),
        Outcome("t_maze_10", "recommended", 0, 0.9, 20000, 12.0, True),
        Outcome("repeat_previous", "encoder", 0, 0.5, 100000, 500.0, False),
        Outcome("repeat_previous", "encoder", 1, 0.9, 90000, 500.0, True),
    ]
    lines = table(runs).splitlines()
    assert lines[2] == (
        "| T-maze, corridor of 10 (bar 0.9) | 18,000 ± 2,828, 125 ± 7 s | – | 20,000, 12 s |"
    )
    assert lines[4] == (
        "| RepeatPrevious, easy (bar 0.9) | – | 1 of 2; 0.70 ± 0.28 after 100,000 | – |"
    )


def test_the_table_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    assert table([]).splitlines()[0] in text
