"""From a step's inputs to its token, against the same by hand."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.configs import MLPEncoderConfig

from rllib_attention.encoder.embedding import Embedding
from rllib_attention.encoder.prev_inputs import PrevInputs

PREV = PrevInputs(gym.spaces.Discrete(3), 2, 1)


def make(prev=PREV, check_finite=True, token_size=0.0):
    torch.manual_seed(0)
    tokenizer = MLPEncoderConfig(input_dims=(4,), hidden_layer_dims=[8], output_layer_dim=6)
    return Embedding(tokenizer, prev, 5, token_size=token_size, check_finite=check_finite)


def test_tokens_are_those_of_each_step_by_hand():
    embedding, obs = make(), torch.randn(7, 4)
    prev = torch.tensor([[0, 2, 0.5], [1, -1, -2.0], [-1, -1, 0.0]])  # two actions, a reward
    tokens = embedding(obs[:3], prev)
    one_hot = [[1, 0, 0, 0, 0, 1, 0.5], [0, 1, 0, 0, 0, 0, -2.0], [0.0] * 7]
    for i in range(3):
        token = embedding.tokenizer({Columns.OBS: obs[i : i + 1]})[ENCODER_OUT]
        by_hand = embedding.input(torch.cat((token[0], torch.tensor(one_hot[i]))))
        torch.testing.assert_close(tokens[i], by_hand)


def test_normed_tokens_have_one_size_whatever_the_scale_of_observations():
    embedding, plain, obs = make(token_size=0.4), make(), torch.randn(7, 4)
    prev = torch.tensor([[0, 2, 0.5]]).expand(7, 3)
    sizes = [embedding(scale * obs, prev).square().mean(-1).sqrt() for scale in (1.0, 100.0)]
    for size in sizes:
        torch.testing.assert_close(size, torch.full((7,), 0.4), atol=0.02, rtol=0)
    assert (plain(100 * obs, prev).abs().mean() / plain(obs, prev).abs().mean()) > 5
    assert embedding.input.bias is None  # the norm has one


def test_bytes_are_read_as_numbers():
    embedding = make(PrevInputs(None, 0, 0))
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 4), np.uint8))
    torch.testing.assert_close(embedding(obs, None), embedding(obs.float(), None))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_observations_are_named(value):
    embedding, obs = make(), torch.zeros(5, 4)
    obs[3, 1] = value
    embedding.name = "RLModule 'p0'"
    message = "Observations of RLModule 'p0' hold 1 non-finite values (NaN or infinity) of 20"
    with pytest.raises(ValueError, match=re.escape(message) + ".*lies at step 3 of 5 in this pass"):
        embedding.check(obs)
    make(check_finite=False).check(obs)


def test_a_pass_checks_nothing_by_itself():
    """Who calls it knows whether the host has checked already."""
    obs = torch.full((5, 4), torch.nan)
    assert make()(obs, torch.zeros(5, 3)).isnan().any()


def test_huge_observations_are_finite():
    """Their sum is not."""
    make().check(torch.full((5, 4), torch.finfo(torch.float32).max))
