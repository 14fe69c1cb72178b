"""Runs: same options for all models, one file each, resumable; diagnostics tell what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.learning import run as run_module
from tests.benchmarks.learning.__main__ import parse_args, runs_of
from tests.benchmarks.learning.diagnostics import DiagnosticLearner, evaluate, table
from tests.benchmarks.learning.models import MODELS, make_config
from tests.benchmarks.learning.run import Run, execute
from tests.benchmarks.learning.tasks import TASKS


@pytest.mark.parametrize("model", MODELS["ppo"])
def test_each_model_trains_and_leaves_a_curve(model: str, tmp_path: Path) -> None:
    training = {"train_batch_size_per_learner": 512, "num_epochs": 1}
    run = Run(task="t_maze_10", model=model, budget=600, training=training)
    record = execute(run, tmp_path)
    assert [row["steps"] for row in record["curve"]] == [512, 1024]
    assert -1.0 <= record["curve"][-1]["value"] <= 1.0
    assert json.loads((tmp_path / f"{run.name}.json").read_text()) == record


def test_a_finished_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(task="t_maze_10", model="mlp")
    (tmp_path / f"{run.name}.json").write_text('{"curve": []}')
    monkeypatch.setattr(run_module, "make_config", lambda *args: pytest.fail("it ran again"))
    assert execute(run, tmp_path) == {"curve": []}


@pytest.mark.parametrize("model", ["attention", "lstm", "mlp"])
def test_models_differ_in_nothing_but_the_model(model: str) -> None:
    def options(name: str) -> list[Any]:
        config = make_config("noise_before_cue", name, seed=3)
        names = ("lr", "gamma", "train_batch_size_per_learner", "minibatch_size", "num_epochs")
        return [getattr(config, key) for key in (*names, "grad_clip", "seed", "lambda_")]

    assert options(model) == options("attention")


def test_a_model_that_the_algorithm_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="sac_masked_pendulum: expected one of"):
        make_config("sac_masked_pendulum", "lstm", 0)


def test_stacked_frames_are_what_the_agent_is_given() -> None:
    for model, size in (("stacked", 8), ("attention", 2)):
        algo = make_config("sac_masked_pendulum", model, 0).build_algo()
        try:
            assert algo.env_runner.env.single_observation_space.shape == (size,)
        finally:
            algo.stop()


def test_replayed_tasks_have_no_recurrent_runs() -> None:
    args = parse_args(["--tasks", "t_maze_10", "dqn_repeat_previous_easy", "--seeds", "0"])
    runs = [(run["task"], run["model"]) for run in runs_of(args)]
    assert len(runs) == len(MODELS["ppo"]) + len(MODELS["dqn"])
    assert ("dqn_repeat_previous_easy", "lstm") not in runs
    assert ("t_maze_10", "stacked") not in runs


@pytest.mark.parametrize("name", TASKS)
def test_every_task_makes_an_environment(name: str) -> None:
    task = TASKS[name]
    if task.env_config.get("id", "").startswith("Labyrinth"):
        pytest.importorskip("mazelib")
    if name in ("sac_masked_cart_pole", "sac_masked_half_cheetah"):
        pytest.importorskip("mujoco")
        pytest.importorskip("imageio")
    pytest.importorskip("popgym")
    env = task.make(task.env_config)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert task.low < task.bar <= task.high


@pytest.mark.parametrize("model", ["attention", "lstm"])
def test_diagnostics_hold_rows_out(model: str) -> None:
    training = {"learner_class": DiagnosticLearner, "train_batch_size_per_learner": 1024}
    algo = make_config("noise_before_cue", model, 0, {}, training).build_algo()
    try:
        algo.train()
        learner = algo.learner_group._learner
        [record] = learner.records
        first, *rest = record["epochs"]
        assert len(rest) == 6
        # Nothing has changed before the first epoch, and parity holds.
        for part in first.values():
            assert part["kl"] == pytest.approx(0.0, abs=1e-4)
            assert part["surrogate"] == pytest.approx(0.0, abs=1e-4)
        assert all(epoch["trained"]["kl"] > 0.0 for epoch in rest)
        assert set(record["gradients"]) == {"tokenizer", "memory", "pi", "vf"}
        assert "| held out | kl | " in table(learner.records)
        module, rows = learner.module["default_policy"].unwrapped(), learner._held_out
        before = evaluate(module, rows)
        with torch.no_grad():
            module.vf.net.mlp[0].weight.zero_()
        after = evaluate(module, rows)
        # A constant value explains nothing, and says nothing about the policy.
        assert after["explained"] == pytest.approx(0.0, abs=0.01)
        assert (after["kl"], after["entropy"]) == (before["kl"], before["entropy"])
    finally:
        algo.stop()
