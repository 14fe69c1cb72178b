"""`use_attention` and `custom_model` on the old stack: registration, algorithms, Tune, errors."""

import re
import subprocess
import sys

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
from ray.rllib.models.catalog import ModelCatalog
from ray.rllib.policy.policy import PolicySpec
from ray.tune.registry import RLLIB_MODEL, _global_registry

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.old_stack.model import NEW_STACK, AttentionModelV2
from rllib_attention.old_stack.registration import MODEL_NAME, register_at_init
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


# Registration


def test_importing_the_package_registers_the_model_without_importing_rllib():
    script = (
        "import sys, rllib_attention\n"
        "assert 'torch' not in sys.modules and 'ray.rllib' not in sys.modules\n"
        "from ray.tune.registry import RLLIB_MODEL, _global_registry\n"
        "model = _global_registry.get(RLLIB_MODEL, 'attention')\n"
        "assert model.__name__ == 'AttentionModelV2', model\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_registering_again_changes_nothing():
    hooks = list(ray._private.worker._post_init_hooks)
    register_at_init()
    assert ray._private.worker._post_init_hooks == hooks
    assert _global_registry.get(RLLIB_MODEL, "attention") is AttentionModelV2


def test_the_name_is_a_plain_string_that_imports_the_package_when_unpickled():
    assert MODEL_NAME == "attention"
    script = (
        "import pickle, sys\n"
        f"assert pickle.loads({ray.cloudpickle.dumps(MODEL_NAME)!r}) == 'attention'\n"
        "assert 'rllib_attention' in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


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
    assert config.model["custom_model"] == "attention"
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
        assert model["custom_model"] == "attention"
    assert complete.model["custom_model"] is None


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


def test_unknown_policies_are_errors():
    config = small(PPOConfig()).multi_agent(policies={"a"})
    message = "`module_ids` must be policies of the config, ['a'], got ['b']"
    with pytest.raises(ValueError, match=re.escape(message)):
        use_attention(config, module_ids=["b"])


def test_rllibs_catalog_finds_the_model_by_name():
    model_config = ppo_config().model
    env = RaggedEnv({})
    built = ModelCatalog.get_model_v2(
        env.observation_space, env.action_space, 3, model_config, framework="torch"
    )
    assert type(built) is AttentionModelV2


# After all other tests with a cluster: it starts a new one


@ray.remote
def registered_class() -> str:
    return _global_registry.get(RLLIB_MODEL, "attention").__name__


@pytest.mark.slow
def test_workers_find_the_model_after_each_init(cluster):
    assert ray.get(registered_class.remote()) == "AttentionModelV2"
    ray.shutdown()
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    assert ray.get(registered_class.remote()) == "AttentionModelV2"
    assert _global_registry.get(RLLIB_MODEL, "attention") is AttentionModelV2
