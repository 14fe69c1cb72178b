"""Actor and critic over one context: shared, separate, frozen, and as a target network."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ACTOR, CRITIC, ENCODER_OUT
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import AttentionConfig, attention_catalog
from rllib_attention.encoder.inputs import ChunkContext, RolloutStep, nested
from rllib_attention.encoder.rollout_memory import RolloutMemory

SPACE = gym.spaces.Box(-1, 1, (3,), np.float32)


def build(shared, **options):
    torch.manual_seed(0)
    attention = AttentionConfig(dim=8, num_heads=2, window=4, ffn_dim=8, **options)
    model_config = vars(
        DefaultModelConfig(fcnet_hiddens=[8], head_fcnet_hiddens=[], vf_share_layers=shared)
    )
    model_config |= {"attention": attention.to_dict(), "max_seq_len": 5}
    del model_config["attention"]["max_seq_len"]
    catalog = attention_catalog(PPOCatalog)(SPACE, gym.spaces.Discrete(2), model_config)
    return catalog.build_actor_critic_encoder(framework="torch")


def batch(*, nest=False):
    state = ChunkContext(
        context=torch.randn(2, 6, 3),
        context_length=torch.tensor([6, 2]),
        chunk_length=torch.tensor([5, 4]),
    ).to_state()
    return {
        Columns.OBS: torch.randn(2, 5, 3),
        Columns.STATE_IN: nested(state) if nest else state,
    }


@pytest.mark.parametrize("nest", [False, True])
def test_separate_encoders_see_the_same_context(nest):
    encoder, inputs = build(shared=False), batch(nest=nest)
    out = encoder(inputs)[ENCODER_OUT]
    flat = {**inputs, Columns.STATE_IN: inputs[Columns.STATE_IN].get(CRITIC, inputs["state_in"])}
    for key, own in ((ACTOR, encoder.actor_encoder), (CRITIC, encoder.critic_encoder)):
        torch.testing.assert_close(out[key], own(flat)[ENCODER_OUT])
    assert not torch.allclose(out[ACTOR], out[CRITIC])


def test_a_shared_encoder_is_computed_once():
    encoder = build(shared=True)
    out = encoder(batch())[ENCODER_OUT]
    assert out[ACTOR] is out[CRITIC]


@pytest.mark.parametrize("nest", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_state_comes_out_as_it_went_in(shared, nest):
    encoder = build(shared=shared)
    state = {k: torch.stack([v] * 2) for k, v in encoder.get_initial_state().items()}
    given = nested(state) if nest else state
    out = encoder({Columns.OBS: torch.randn(2, 1, 3), Columns.STATE_IN: given})
    assert out[Columns.STATE_OUT].keys() == given.keys()


def test_a_frozen_critic_still_gives_values():
    encoder = build(shared=False)
    encoder.critic_encoder.requires_grad_(False)
    assert CRITIC in encoder(batch())[ENCODER_OUT]
    assert CRITIC in copy.deepcopy(encoder)(batch())[ENCODER_OUT]


def test_a_target_network_has_no_critic_to_compute():
    target = make_target_network(build(shared=False))
    assert CRITIC not in target(batch())[ENCODER_OUT]


def test_a_rollout_runs_the_actor_only():
    encoder = build(shared=False).eval()
    memory = RolloutMemory([encoder.actor_encoder, encoder.critic_encoder], "the RLModule")
    slot, obs = memory.slots.open("episode"), torch.randn(1, 3)
    memory.history.begin(slot, 0)
    memory.history.write(slot, 0, obs[0].numpy(), None)
    state = RolloutStep(torch.tensor([[slot, 0]])).to_state()
    out = encoder({Columns.OBS: obs, Columns.STATE_IN: nested(state)})
    assert out[ENCODER_OUT].keys() == {ACTOR}
