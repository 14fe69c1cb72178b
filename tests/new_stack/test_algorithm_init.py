"""The callback `on_algorithm_init`: whom it checks, and which buffers it upgrades."""

import re

import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_attention import use_attention
from rllib_attention.new_stack.algorithm_init import PrepareAlgorithm
from rllib_attention.new_stack.replay_buffers.upgrade import UPGRADES
from tests.harness import RandomMultiAgentEnv, build, prepare


def two_modules() -> PPOConfig:
    return PPOConfig().multi_agent(policies={"p0", "p1"})


def test_calls_for_several_modules_share_one_callback():
    config = use_attention(two_modules(), module_ids=["p0"])
    assert config.callbacks_on_algorithm_init == [PrepareAlgorithm(frozenset({"p0"}))]
    use_attention(config, module_ids=["p1"])
    assert config.callbacks_on_algorithm_init == [PrepareAlgorithm(frozenset({"p0", "p1"}))]
    assert use_attention(two_modules()).callbacks_on_algorithm_init == [PrepareAlgorithm(None)]


def test_the_users_callbacks_come_first():
    def own(algorithm, **kwargs):
        pass

    for given, kept in ((own, [own]), ([own, own], [own, own]), (None, [])):
        config = use_attention(PPOConfig().callbacks(on_algorithm_init=given))
        assert config.callbacks_on_algorithm_init == [*kept, PrepareAlgorithm(None)]


def test_a_module_that_lost_its_attention_is_named():
    config = prepare(PPOConfig(), RandomMultiAgentEnv).multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda aid, *args, **kw: f"p{int(aid[-1]) % 2}"
    )
    use_attention(config, module_ids=["p0"])
    use_attention(config, module_ids=["p1"])
    config._rl_module_spec.rl_module_specs["p1"] = RLModuleSpec()
    with pytest.raises(ValueError, match=re.escape("The attention of modules ['p1'] is gone")):
        config.build_algo()


def test_replay_buffers_are_upgraded(stop):
    algo = stop(build(prepare(DQNConfig()), num_layers=2, window=5, prev_actions=3))
    assert type(algo.local_replay_buffer) in UPGRADES.values()
    assert algo.local_replay_buffer.history_len == 2 * 4 + 3


def test_replay_without_the_callback(stop):
    """RLlib's buffer then samples transitions without their past: windows of one step."""
    config = prepare(DQNConfig()).reporting(min_sample_timesteps_per_iteration=40)
    config.training(train_batch_size_per_learner=8, num_steps_sampled_before_learning_starts=8)
    config.reporting(min_time_s_per_iteration=0)
    config = use_attention(config, window=5).callbacks(on_algorithm_init=lambda **kwargs: None)
    algo = stop(config.build_algo())
    with pytest.raises(ValueError, match=re.escape("Call `use_attention(config)` last")):
        algo.train()
