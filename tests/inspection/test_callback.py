"""The callback in real trainings: numbers in results, maps in event files, failures as warnings."""

import logging
from pathlib import Path

import numpy as np
import pytest
import ray
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

from rllib_attention import AttentionConfig, AttentionMapCallback, use_attention
from rllib_attention.inspection import callback as callback_module
from rllib_attention.inspection.recording import record_attention
from tests import harness
from tests.harness import RandomEnv, RandomMultiAgentEnv, build, prepare

SMALL = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=3, dilation=3, max_seq_len=16)
LAYER = {"entropy", "mean_lag", "share_on_current_step"}


class Evaluated(RLlibCallback):
    """Remembers the evaluation episodes of this process."""

    episodes: list = []  # noqa: RUF012

    def on_episode_end(self, *, episode, env_runner, **kwargs):
        if env_runner.config.in_evaluation:
            self.episodes.append(episode)


def config_of(env=RandomEnv, callbacks=AttentionMapCallback, **env_config):
    config = prepare(PPOConfig(), env, **env_config).callbacks(callbacks)
    config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
    return config.evaluation(evaluation_interval=1, evaluation_duration=3)


def events(folder):
    """Yields the values of all event files in a folder, and their steps."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(Path(folder).glob("events*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            yield from ((value, event.step) for value in event.summary.value)
            data = data[12 + length + 4 :]


def images(folder):
    """The names and steps of the pictures that were written."""
    found = events(f"{folder}/attention")
    return [(value.tag, step) for value, step in found if value.image.width]


def test_numbers_are_those_of_the_evaluation_episodes(stop):
    Evaluated.episodes.clear()
    algo = stop(build(config_of(callbacks=[AttentionMapCallback, Evaluated]), SMALL))
    results = algo.train()
    logged = results["evaluation"]["env_runners"]["attention"]["default_policy"]
    assert len(Evaluated.episodes) >= 3
    module = algo.eval_env_runner.module
    records = [record_attention(module, episode) for episode in Evaluated.episodes]
    expected = np.mean([record.context_fill for record in records])
    assert logged["context_fill"] == pytest.approx(expected, rel=1e-5)
    for layer in (0, 1):
        numbers = logged[f"layer_{layer}"]
        assert set(numbers) == LAYER
        for name in LAYER - {"share_on_current_step"}:
            expected = np.mean([getattr(record, name)(layer=layer) for record in records])
            assert numbers[name] == pytest.approx(expected, rel=1e-4)
        expected = np.mean([record.share(0, layer=layer) for record in records])
        assert numbers["share_on_current_step"] == pytest.approx(expected, rel=1e-4)
    assert "attention" not in results["env_runners"]
    algo.train()
    assert images(algo.logdir) == [("attention/default_policy", 1), ("attention/default_policy", 2)]


def by_number(agent_id, episode, **kwargs):
    return "p0" if agent_id == "agent_0" else "p1"


@pytest.mark.slow
def test_several_agents_and_remote_runners(stop):
    config = config_of(RandomMultiAgentEnv).evaluation(evaluation_num_env_runners=2)
    config.env_runners(num_env_runners=1).multi_agent(
        policies={"p0", "p1", "plain"}, policy_mapping_fn=by_number
    )
    algo = stop(build(config, SMALL, module_ids=["p0", "p1"]))
    logged = algo.train()["evaluation"]["env_runners"]["attention"]
    assert set(logged) == {"p0", "p1"}
    for numbers in logged.values():
        assert 0 < numbers["context_fill"] < 1
        assert set(numbers["layer_1"]) == LAYER
    assert sorted(images(algo.logdir)) == [("attention/p0", 1), ("attention/p1", 1)]


@pytest.mark.parametrize("function", ["record_episode", "_write"])
def test_a_failure_is_one_warning(stop, monkeypatch, caplog, function):
    def fails(*args):
        raise RuntimeError("broken")

    monkeypatch.setattr(callback_module, function, fails)
    algo = stop(build(config_of(), SMALL))
    with caplog.at_level(logging.WARNING, logger="rllib_attention"):
        for _ in range(2):
            assert algo.train()["evaluation"]["env_runners"]["num_episodes"] >= 3
    warnings = [record for record in caplog.records if "AttentionMapCallback" in record.message]
    assert len(warnings) == 1
    assert "broken" in warnings[0].exc_text


def test_without_evaluation_it_says_so(stop, caplog):
    config = config_of().evaluation(evaluation_interval=None)
    with caplog.at_level(logging.WARNING, logger="rllib_attention"):
        algo = stop(build(config, SMALL))
    assert "logs at evaluation, but none is planned. Fix: `config.evaluation(" in caplog.text
    algo.train()


def test_the_old_stack_is_refused():
    config = config_of().api_stack(False, False).rl_module(model_config={})
    config = config.environment("CartPole-v1", env_config={})
    with pytest.raises(ValueError, match=r"AttentionMapCallback expects RLlib's new API stack"):
        build(config, SMALL)


@pytest.mark.slow
def test_tune_keeps_numbers_and_maps(tmp_path):
    ray.cloudpickle.register_pickle_by_value(harness)  # workers lack the tests' folder
    sync = tune.SyncConfig(sync_artifacts=True)
    [result] = tune.Tuner(
        PPO,
        param_space=use_attention(config_of(), SMALL),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), stop={"training_iteration": 2}, sync_config=sync
        ),
    ).fit()
    assert result.error is None
    logged = result.metrics["evaluation"]["env_runners"]["attention"]["default_policy"]
    assert set(logged["layer_1"]) == LAYER
    below = "evaluation/env_runners/attention/default_policy"
    column = result.metrics_dataframe[f"{below}/context_fill"]
    assert len(column) == 2
    assert column.iloc[-1] == pytest.approx(logged["context_fill"])
    # What its logger for TensorBoard has written, and what we have.
    scalars = {value.tag: value.simple_value for value, _ in events(result.path)}
    assert scalars[f"ray/tune/{below}/layer_1/entropy"] == pytest.approx(
        logged["layer_1"]["entropy"], rel=1e-5
    )
    assert images(result.path) == [("attention/default_policy", 1), ("attention/default_policy", 2)]
