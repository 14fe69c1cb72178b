"""What the connectors find out about modules."""

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.new_stack.connectors.attention_module import (
    find_attention,
    has_other_stateful,
    inspect_module,
)
from tests.harness import learner_modules

SMALL = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=5, ffn_dim=16, max_seq_len=12)


def test_a_single_module_is_found_by_its_id_and_by_none():
    """Single-agent episodes name no module."""
    modules = learner_modules(use_attention(PPOConfig(), SMALL))
    found = find_attention(modules)
    assert set(found) == {None, DEFAULT_MODULE_ID}
    assert found[None] is found[DEFAULT_MODULE_ID]
    assert set(find_attention(modules[DEFAULT_MODULE_ID])) == {None}


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_known_of_ppo(shared):
    config = PPOConfig().rl_module(model_config={"vf_share_layers": shared})
    known = inspect_module(learner_modules(use_attention(config, SMALL))[DEFAULT_MODULE_ID])
    assert len(known.encoders) == 2 - shared
    assert known.attention.window == 5
    assert (known.max_seq_len, known.windowed, known.nests_state) == (12, False, not shared)
    assert known.state({"x": 1}) == ({"x": 1} if shared else {"critic": {"x": 1}})


def test_what_is_known_of_dqn():
    known = inspect_module(learner_modules(use_attention(DQNConfig(), SMALL))[DEFAULT_MODULE_ID])
    assert known.windowed
    assert not known.nests_state


def test_modules_without_attention():
    config = PPOConfig().multi_agent(policies={"mlp", "attention"})
    modules = learner_modules(use_attention(config, SMALL, module_ids=["attention"]))
    found = find_attention(modules)
    assert set(found) == {"attention"}
    assert not has_other_stateful(modules, found)
    assert has_other_stateful(modules, {}), "attention is stateful, too"


def test_the_entry_of_nested_observations_that_encoders_read():
    module = learner_modules(use_attention(PPOConfig(), SMALL))[DEFAULT_MODULE_ID]
    wanted = module.observation_space
    other = gym.spaces.Box(0, 1, (4,), np.float32)
    module.observation_space = gym.spaces.Dict(
        {"mask": other, "deep": gym.spaces.Dict({"obs": wanted, "other": other})}
    )
    known = inspect_module(module)
    assert known.observation_path == ("deep", "obs")
    assert known.observation({"mask": 0, "deep": {"obs": 7, "other": 1}}) == 7
