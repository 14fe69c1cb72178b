"""`use_attention`: its arguments, and the stack that it hands a config to."""

import pytest
from ray import tune
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

from rllib_attention import use_attention
from rllib_attention.old_stack.model import AttentionModelV2
from tests.refusal import refuses

STACKS = {"new": True, "old": False}


@pytest.fixture(params=STACKS)
def config(request) -> PPOConfig:
    new = STACKS[request.param]
    return PPOConfig().api_stack(
        enable_rl_module_and_learner=new, enable_env_runner_and_connector_v2=new
    )


def test_each_stack_gets_its_own_model(config):
    before = config.model.get("custom_model")
    assert use_attention(config, window=9) is config
    if config.enable_rl_module_and_learner:
        assert config.model_config["attention"]["window"] == 9
        assert config.model.get("custom_model") == before
    else:
        assert config.model["custom_model"] is AttentionModelV2
        assert config.model["custom_model_config"]["window"] == 9
        assert config._rl_module_spec is None


@pytest.mark.parametrize("value", [{"env": "CartPole-v1"}, None, PPOConfig])
def test_not_a_config(value):
    message = f"`use_attention` expects an AlgorithmConfig such as PPOConfig(), got {value!r}."
    with pytest.raises(TypeError) as info:
        use_attention(value)
    assert str(info.value) == message


def test_not_an_attention_config(config):
    with refuses(config, TypeError, "`attention` must be an AttentionConfig, got {'window': 3}"):
        use_attention(config, {"window": 3})


@pytest.mark.parametrize("value", [3, tune.choice([3, 4])], ids=["plain", "searched"])
def test_unknown_options(config, value):
    with refuses(config, ValueError, "AttentionConfig has no field 'windw'. Did you mean 'window'"):
        use_attention(config, windw=value)


def test_wrong_options(config):
    with refuses(config, TypeError, "AttentionConfig.window must be an int, got 'long' (str)."):
        use_attention(config, window="long")
    with refuses(config, ValueError, "AttentionConfig.window must be at least 1, got 0."):
        use_attention(config, window=0)


@pytest.mark.parametrize(("values", "reason"), [([3, 5], "num_heads"), ([], "it is empty")])
def test_search_space_without_a_valid_value(config, values, reason):
    with refuses(config, ValueError, "Expected a search space with a valid combination") as info:
        use_attention(config, dim=16, num_heads=tune.grid_search(values))
    assert reason in str(info.value)


def test_a_plain_value_may_need_a_searched_one():
    config = use_attention(PPOConfig(), dim=48, num_heads=tune.grid_search([5, 6]))
    assert config.model_config["attention"]["dim"] == 48


def test_unknown_policies(config):
    config.multi_agent(policies={"p0", "p1"})
    with refuses(config, ValueError, "`module_ids` must ") as info:
        use_attention(config, module_ids=["p0", "p2"])
    assert "['p0', 'p1']" in str(info.value)
    assert "p2" in str(info.value)


@pytest.mark.parametrize("config_class", [DQNConfig, SACConfig])
def test_algorithms_that_only_the_new_stack_serves(config_class):
    config = config_class().api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    with refuses(config, ValueError, "cannot use attention on RLlib's old API stack"):
        use_attention(config)
    config.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
    use_attention(config)


def test_other_memory_in_its_place(config):
    if config.enable_rl_module_and_learner:
        config.rl_module(model_config={"use_lstm": True})
    else:
        config.training(model={"use_lstm": True})
    with refuses(config, ValueError, "use_lstm") as info:
        use_attention(config)
    assert "False" in str(info.value)
