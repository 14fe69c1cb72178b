"""The line about what was built: encoders and weights counted another way."""

import re

import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.new_stack.summary import (
    ModuleSummary,
    in_words,
    summarize_learner,
    summarize_modules,
)
from tests.harness import DISCRETE, RandomEnv, learner_modules, prepare

SMALL = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=5, ffn_dim=16, max_seq_len=16)


def ppo(**model_config) -> PPOConfig:
    config = PPOConfig().rl_module(model_config={"fcnet_hiddens": [16]} | model_config)
    return use_attention(config, SMALL)


def sizes(module) -> dict[str, int]:
    """What is in a checkpoint by name, save targets and a constant of RLlib's heads."""
    state = module.get_state()
    left_out = ("target", "log_std_clip")
    return {k: v.size for k, v in state.items() if not any(part in k for part in left_out)}


def num_weights(module, prefix="") -> int:
    return sum(size for name, size in sizes(module).items() if name.startswith(prefix))


@pytest.mark.parametrize("shared", [False, True])
def test_a_separate_critic_has_an_encoder_of_its_own(shared):
    built = learner_modules(ppo(vf_share_layers=shared))
    [summary] = summarize_modules(built).values()
    assert summary == ModuleSummary(
        num_encoders=1 if shared else 2,
        num_targets=0,
        encoder_parameters=num_weights(built["default_policy"], "encoder."),
        parameters=num_weights(built["default_policy"]),
        context_len=8,
        max_seq_len=16,
    )


def test_only_modules_with_attention_are_listed():
    config = PPOConfig().multi_agent(policies={"p0", "p1", "p2"})
    use_attention(config, SMALL, module_ids=["p0"])
    use_attention(config, SMALL, module_ids=["p2"], num_layers=1)
    built = learner_modules(config)
    summaries = summarize_modules(built)
    assert sorted(summaries) == ["p0", "p2"]
    for module_id, summary in summaries.items():
        assert summary.parameters == num_weights(built[module_id])
        assert summary.encoder_parameters == num_weights(built[module_id], "encoder.")
    assert summaries["p2"].encoder_parameters < summaries["p0"].encoder_parameters
    assert [summaries[module_id].context_len for module_id in ("p0", "p2")] == [8, 4]


@pytest.mark.parametrize(
    ("config_class", "num_encoders"),
    [
        (DQNConfig, 1),
        (SACConfig, 3),  # actor, and a pair of critics; their targets are not trained
    ],
)
def test_target_networks_are_told_apart(config_class, num_encoders):
    config = use_attention(prepare(config_class()), SMALL)
    learner = config.build_learner(env=RandomEnv({"action_space": DISCRETE}))
    learner.build()
    [summary] = summarize_learner(learner).values()
    assert summary.num_encoders == num_encoders
    assert summary.num_targets == (1 if config_class is DQNConfig else 2)
    by_name = sizes(learner.module["default_policy"])
    assert summary.parameters == sum(by_name.values())
    parts = (".embedding.", ".transformer.")
    encoders = [size for name, size in by_name.items() if any(part in name for part in parts)]
    assert summary.encoder_parameters == sum(encoders)


def test_in_words():
    one = ModuleSummary(1, 0, 1000, 2000, 62, 64)
    other = ModuleSummary(3, 2, 1234567, 2345678, 1, 1)
    assert in_words({"p1": one}) == (
        "'p1' has 1 encoder, 1,000 of 2,000 parameters, context of 62 steps, chunks of 64 steps"
    )
    assert in_words({"p1": one, "p0": one, "p2": other}) == (
        "'p0', 'p1' have 1 encoder, 1,000 of 2,000 parameters, context of 62 steps, chunks of 64 "
        "steps each; 'p2' has 3 encoders and 2 target copies, 1,234,567 of 2,345,678 parameters, "
        "context of 1 step, chunks of 1 step"
    )


@pytest.mark.parametrize(
    "num_learners", [0, pytest.param(2, marks=pytest.mark.slow)], ids=["local", "remote"]
)
def test_building_an_algorithm_logs_one_line(num_learners, stop, caplog):
    config = use_attention(prepare(PPOConfig()).learners(num_learners=num_learners), SMALL)
    with caplog.at_level("INFO", logger="rllib_attention"):
        stop(config.build_algo())
    [line] = [r for r in caplog.records if r.name == "rllib_attention.new_stack.summary"]
    assert line.levelname == "INFO"
    expected = r"PPO with attention: 'default_policy' has 2 encoders, [\d,]+ of [\d,]+ parameters, "
    assert re.fullmatch(
        expected + r"context of 8 steps, chunks of 16 steps\.",
        line.getMessage(),
    )
