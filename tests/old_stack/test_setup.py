"""`use_attention` and `custom_model` on the old stack: algorithms, Tune, errors."""

import copy
import re

import numpy as np
import pytest
import ray
from ray import tune
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.policy.policy import PolicySpec

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.config import DEFAULT_CHUNK
from rllib_attention.old_stack import NEW_STACK
from rllib_attention.old_stack.model import AttentionModelV2
from tests.old_stack import support as old_stack_support
from tests.old_stack.support import (
    RaggedEnv,
    RaggedMultiAgentEnv,
    old_stack,
    ppo_config,
    rollout_worker,
)

SMALL = {"dim": 16, "num_heads": 2, "window": 4, "max_seq_len": 8}


@pytest.fixture(scope="module")
def cluster():
    # Workers do not have the tests on their path.
    ray.cloudpickle.register_pickle_by_value(old_stack_support)
    if not ray.is_initialized():
        ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    yield
    ray.cloudpickle.unregister_pickle_by_value(old_stack_support)


def small(config, env=RaggedEnv):
    """Return an old-stack config of any algorithm, sized for a test."""
    config = old_stack(config).environment(env)
    config.env_runners(num_env_runners=0, rollout_fragment_length=20).resources(num_gpus=0)
    return config.training(train_batch_size=40, model={"fcnet_hiddens": [16]})


# Algorithms


@pytest.mark.slow
def test_a_plain_dict_config_trains_with_remote_workers(cluster):
    config = ppo_config(prev_actions=2, prev_rewards=1).to_dict()
    algo = PPO(config=config | {"num_env_runners": 1})
    before = algo.get_weights()["default_policy"]
    before = {key: np.array(value) for key, value in before.items()}
    algo.train()
    after = algo.get_weights()["default_policy"]
    assert all(np.isfinite(value).all() for value in after.values())
    changed = [key for key in after if not np.array_equal(before[key], after[key])]
    assert any(key.startswith("encoder.actor_encoder.transformer") for key in changed)
    assert any(key.startswith("encoder.critic_encoder.transformer") for key in changed)
    algo.stop()


@pytest.mark.slow
@pytest.mark.parametrize("config_class", [IMPALAConfig, APPOConfig])
def test_asynchronous_algorithms_train(cluster, config_class):
    config = small(config_class()).env_runners(num_env_runners=1)
    algo = use_attention(config, prev_actions=1, prev_rewards=1, **SMALL).build_algo()
    policy = algo.get_policy()
    before = {key: np.array(value) for key, value in policy.get_weights().items()}
    for _ in range(50):
        algo.train()
        after = policy.get_weights()
        if any(not np.array_equal(before[key], after[key]) for key in after):
            break
    else:
        pytest.fail("no update in 50 iterations")
    assert all(np.isfinite(value).all() for value in after.values())
    algo.stop()


@pytest.mark.slow
def test_tune_sweeps_fields_of_both_dicts(cluster, tmp_path):
    config = use_attention(
        small(PPOConfig()).training(minibatch_size=20, num_epochs=1),
        dim=16,
        num_heads=2,
        window=tune.grid_search([2, 5]),
        max_seq_len=tune.grid_search([4]),
    )
    run_config = tune.RunConfig(
        stop={"training_iteration": 1}, storage_path=str(tmp_path), verbose=0
    )
    results = tune.Tuner(config.algo_class, param_space=config, run_config=run_config).fit()
    assert not results.errors
    models = [result.config["model"] for result in results]
    assert sorted(model["custom_model_config"]["window"] for model in models) == [2, 5]
    assert {model["max_seq_len"] for model in models} == {4}


# use_attention


@pytest.mark.parametrize("config_class", [PPOConfig, APPOConfig, IMPALAConfig])
def test_use_attention_sets_the_model_dict_and_keeps_the_rest(config_class):
    config = small(config_class())
    shares = config.model["vf_share_layers"]
    assert use_attention(config, AttentionConfig(window=5), max_seq_len=10) is config
    assert config.model["custom_model"] is AttentionModelV2
    assert config.model["max_seq_len"] == 10
    options = config.model["custom_model_config"]
    assert AttentionConfig.from_dict(options).window == 5
    assert "max_seq_len" not in options
    assert config.model["fcnet_hiddens"] == [16]
    assert config.model["vf_share_layers"] == shares


def test_moving_from_rllibs_own_attention_is_one_line():
    model = {"use_attention": True, "attention_dim": 32, "attention_memory_inference": 9}
    config = use_attention(small(PPOConfig()), AttentionConfig.from_rllib(model))
    built = rollout_worker(config).get_policy().model
    assert isinstance(built, AttentionModelV2)
    assert (built.attention.dim, built.attention.window, built.attention.gate) == (32, 10, "gru")


def test_policies_of_their_own_models():
    config = small(PPOConfig(), RaggedMultiAgentEnv).multi_agent(
        policies={"a", "b"}, policy_mapping_fn=lambda agent_id, *args, **kwargs: agent_id
    )
    worker = rollout_worker(use_attention(config, module_ids=["b"], **SMALL))
    assert not isinstance(worker.get_policy("a").model, AttentionModelV2)
    assert isinstance(worker.get_policy("b").model, AttentionModelV2)
    assert set(worker.sample().policy_batches) == {"a", "b"}


def test_policies_keep_their_own_configs():
    complete = small(PPOConfig(), RaggedMultiAgentEnv).training(lr=0.03)
    policies = {
        "a": PolicySpec(config={"lr": 0.01, "model": {"fcnet_hiddens": [12]}}),
        "b": (None, None, None, {"lr": 0.02}),
        "c": PolicySpec(config=complete),
        "d": PolicySpec(),
    }
    config = small(PPOConfig(), RaggedMultiAgentEnv).multi_agent(policies=policies)
    use_attention(config, module_ids=["a"], **SMALL)
    use_attention(config, module_ids=["b", "c"], **SMALL)
    own = {policy_id: spec.config for policy_id, spec in config.policies.items()}
    assert own["a"]["model"]["fcnet_hiddens"] == [12]
    assert [own["a"]["lr"], own["b"]["lr"], own["c"].lr, own["d"]] == [0.01, 0.02, 0.03, None]
    for model in (own["a"]["model"], own["b"]["model"], own["c"].model):
        assert model["custom_model"] is AttentionModelV2
    assert complete.model["custom_model"] is None


def test_policies_with_configs_of_their_own_are_among_all():
    complete = small(PPOConfig(), RaggedMultiAgentEnv)
    policies = {
        "a": PolicySpec(config={"lr": 0.01}),
        "b": [None, None, None, {"model": {"fcnet_hiddens": [12]}}],
        "c": PolicySpec(config=complete),
        "d": PolicySpec(),
    }
    config = small(PPOConfig(), RaggedMultiAgentEnv).multi_agent(
        policies=policies, policy_mapping_fn=lambda agent_id, *args, **kwargs: agent_id
    )
    worker = rollout_worker(use_attention(config, **SMALL))
    for policy_id in policies:
        built = worker.get_policy(policy_id).model
        assert isinstance(built, AttentionModelV2), policy_id
        assert built.attention.window == 4
    assert worker.get_policy("b").model.encoder.actor_encoder.embedding.input.in_features == 12


# Chunks


@pytest.mark.parametrize(
    ("given", "options", "length"),
    [
        ({}, {}, DEFAULT_CHUNK),
        ({}, {"max_seq_len": 10}, 10),
        ({"max_seq_len": 12}, {}, 12),
        ({"max_seq_len": 12}, {"max_seq_len": 12}, 12),
    ],
    ids=str,
)
def test_a_models_own_max_seq_len_is_kept(given, options, length):
    config = use_attention(small(PPOConfig()).training(model=given), **options)
    assert config.model["max_seq_len"] == length


def test_two_different_values_of_max_seq_len_are_an_error():
    config = small(PPOConfig()).training(model={"max_seq_len": 12})
    message = (
        "The model dict asks for max_seq_len=12, `use_attention` for 10: expected the same. Use "
        "`use_attention(config, max_seq_len=12)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        use_attention(config, max_seq_len=10)


# Errors


@pytest.mark.parametrize("config_class", [DQNConfig, SACConfig, CQLConfig, BCConfig, MARWILConfig])
def test_other_algorithms_point_to_the_new_stack(config_class):
    name = config_class.__name__.removesuffix("Config")
    message = f"{name} cannot use attention on RLlib's old API stack, "
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        use_attention(old_stack(config_class()))
    assert str(error.value).endswith(
        f"expected PPO, APPO or IMPALA. On the new API stack it can: {NEW_STACK}."
    )


def test_half_of_an_old_stack_is_an_error():
    config = PPOConfig().api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=True
    )
    with pytest.raises(ValueError, match="both False, got only the first"):
        use_attention(config)


def test_other_frameworks_are_errors():
    config = old_stack(PPOConfig())
    config.framework_str = "tf2"
    with pytest.raises(ValueError, match=r"needs framework 'torch', got 'tf2'"):
        use_attention(config)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"use_lstm": True}, 'Use `config.training(model={"use_lstm": False})`'),
        ({"use_attention": True}, "`AttentionConfig.from_rllib(model)` reads the sizes"),
        ({"custom_model": "mine"}, "The model dict asks for custom_model='mine'"),
        ({"custom_model": "attention"}, "This config uses attention already"),
    ],
)
def test_model_dicts_that_ask_for_another_model_are_errors(model, message):
    config = small(PPOConfig()).training(model=model)
    with pytest.raises(ValueError, match=re.escape(message)):
        use_attention(config)


@pytest.mark.parametrize("module_ids", [["b"], ["a", "b"], []], ids=str)
def test_unknown_policies_are_errors(module_ids):
    config = small(PPOConfig()).multi_agent(policies={"a"})
    message = f"`module_ids` must be policies of the config, ['a'], got {module_ids}. Use "
    with pytest.raises(ValueError, match=re.escape(message)):
        use_attention(config, module_ids=module_ids)


def test_a_string_of_policies_is_an_error():
    config = small(PPOConfig()).multi_agent(policies={"a"})
    message = "got the string 'a'. Use `use_attention(config, module_ids=['a'])`."
    with pytest.raises(TypeError, match=re.escape(message)):
        use_attention(config, module_ids="a")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"use_lstm": True}, "The model dict of policy 'b' asks for use_lstm=True"),
        ({"custom_model": "mine"}, "The model dict of policy 'b' asks for custom_model='mine'"),
        ({"max_seq_len": 12}, "The model dict of policy 'b' asks for max_seq_len=12, "),
    ],
    ids=str,
)
@pytest.mark.parametrize("module_ids", [None, ["a", "b"]])
def test_a_refused_call_leaves_the_config_as_it_was(model, message, module_ids):
    policies = {"a": PolicySpec(config={"lr": 0.1}), "b": PolicySpec(config={"model": model})}
    config = small(PPOConfig()).multi_agent(policies=policies)
    before = copy.deepcopy(config.to_dict())
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        use_attention(config, module_ids=module_ids, max_seq_len=10)
    if "max_seq_len" not in model:
        assert "`use_attention(config, module_ids=[...])`" in str(error.value)
    assert config.to_dict() == before
    assert config.policies is policies
    assert policies["b"].config == {"model": model}
    use_attention(config, module_ids=["a"])  # and the next call is not refused for the first


def test_the_whole_configs_model_counts_for_a_policy():
    config = small(PPOConfig()).training(model={"use_lstm": True}).multi_agent(policies={"a"})
    with pytest.raises(ValueError, match="The model dict of policy 'a' asks for use_lstm=True"):
        use_attention(config, module_ids=["a"])
