"""The new stack's networks from the old stack's model dict."""

import re

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.core.models.torch.heads import TorchMLPHead
from ray.rllib.utils.spaces.simplex import Simplex

from rllib_attention import AttentionConfig
from rllib_attention.old_stack.networks import attention_options, new_stack_catalog, policy_head
from tests.old_stack.support import ACTION_SPACES, VECTOR, ppo_config


def head(action_space, num_outputs=5, **model):
    model_config = ppo_config().model | model
    catalog = new_stack_catalog(VECTOR, action_space, model_config, AttentionConfig(max_seq_len=8))
    return policy_head(catalog, model_config, num_outputs)


def out_features(module) -> int:
    return [p.shape[0] for p in module.parameters() if p.dim() == 2][-1]


def test_max_seq_len_has_one_value():
    message = 'Use `config.training(model={"max_seq_len": 64})`.'
    with pytest.raises(ValueError, match=re.escape(message)):
        attention_options({"max_seq_len": 64}, 8)
    assert attention_options({"max_seq_len": 8}, 8).max_seq_len == 8
    assert attention_options({"window": 3}, 8) == AttentionConfig(window=3, max_seq_len=8)


def test_unknown_options_are_errors():
    with pytest.raises(ValueError, match=r"has no field 'windw'\. Did you mean 'window'\?"):
        attention_options({"windw": 3}, 8)


def test_heads_are_those_of_the_new_stack_where_it_has_the_distribution():
    assert out_features(head(ACTION_SPACES["discrete"])) == 3
    assert out_features(head(ACTION_SPACES["box"])) == 4  # means and standard deviations


@pytest.mark.parametrize(
    "action_space",
    [Simplex((3,)), gym.spaces.Box(0, 4, (2,), np.int32), gym.spaces.Tuple((Simplex((3,)),))],
    ids=str,
)
def test_other_distributions_get_a_plain_head_of_their_size(action_space):
    built = head(action_space)
    assert isinstance(built, TorchMLPHead)
    assert out_features(built) == 5


def test_own_distributions_get_a_plain_head_of_their_size():
    assert out_features(head(ACTION_SPACES["discrete"], custom_action_dist="mine")) == 5
