"""The encoder on its own: dropout, copies, and what it refuses."""

import copy
import pickle
import re

import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ENCODER_OUT

from rllib_attention import AttentionEncoderConfig
from tests.encoder.support import SPACE, TOKENIZER, Rollout, build, chunk


def test_dropout_acts_in_training_passes_only():
    """`forward_train` calls `train()` and the encoder; a value pass calls the encoder again."""
    encoder, batch = build(dropout=0.5), chunk()
    encoder.eval()
    rollout = encoder(batch)[ENCODER_OUT]
    encoder.train()
    training = encoder(batch)[ENCODER_OUT]
    value_pass = encoder(batch)[ENCODER_OUT]
    assert not torch.allclose(training, rollout)
    torch.testing.assert_close(value_pass, rollout, atol=0, rtol=0)


def test_dropout_stays_out_of_target_networks_and_passes_without_gradients():
    encoder, batch = build(dropout=0.5), chunk()
    rollout = encoder.eval()(batch)[ENCODER_OUT]
    target = make_target_network(encoder).train()
    torch.testing.assert_close(target(batch)[ENCODER_OUT], rollout, atol=1e-6, rtol=0)
    with torch.no_grad():
        without = encoder.train()(batch)[ENCODER_OUT]
    torch.testing.assert_close(without, rollout, atol=1e-6, rtol=0)


def test_dropout_acts_with_frozen_parts_and_in_copies_that_are_trained():
    encoder, batch = build(dropout=0.5), chunk()
    rollout = encoder.eval()(batch)[ENCODER_OUT]
    encoder.embedding.requires_grad_(False)
    copied = copy.deepcopy(encoder)
    for trained in (encoder, copied):
        assert not torch.allclose(trained.train()(batch)[ENCODER_OUT], rollout)


def test_gradients_reach_every_step_of_the_context():
    encoder, batch = build(), chunk(steps=1)
    context = batch[Columns.STATE_IN]["context"].requires_grad_()
    encoder(batch)[ENCODER_OUT][0].pow(2).sum().backward()
    assert (context.grad[0].abs().sum(-1) > 0).all()
    assert (context.grad[1] == 0).all()  # the second row's context is not valid


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_leave_the_cache_behind(duplicate):
    rollout = Rollout(build().eval(), torch.randn(2, 5, 3))
    rollout.run()
    copied = duplicate(rollout.encoder)
    assert copied._cache is None
    rollout.run()
    batch = chunk()
    torch.testing.assert_close(copied(batch)[ENCODER_OUT], rollout.encoder(batch)[ENCODER_OUT])


def test_without_a_context_it_says_what_is_missing():
    message = "AttentionEncoder needs the context of each observation"
    with pytest.raises(ValueError, match=message):
        build()({Columns.OBS: torch.zeros(2, 3)})


def test_non_finite_observations_are_refused_unless_switched_off():
    batch = chunk()
    batch[Columns.OBS][0, 0, 0] = float("inf")
    message = "Observations of the RLModule hold 1 non-finite values"
    with pytest.raises(ValueError, match=re.escape(message)):
        build()(batch)
    build(check_finite=False)(batch)


@pytest.mark.parametrize("name", ["tokenizer_config", "observation_space"])
def test_missing_parts(name):
    parts = {"tokenizer_config": TOKENIZER, "observation_space": SPACE, name: None}
    with pytest.raises(ValueError, match=f"AttentionEncoderConfig needs `{name}`, got None"):
        AttentionEncoderConfig(**parts).build()


def test_other_frameworks():
    with pytest.raises(ValueError, match="needs framework 'torch', got 'tf2'"):
        AttentionEncoderConfig().build(framework="tf2")


@pytest.mark.slow
def test_torch_compile_changes_nothing():
    encoder = build()
    compiled = torch.compile(encoder, backend="aot_eager")
    for steps in (10, 12):
        batch = chunk(steps)
        expected, out = encoder(batch)[ENCODER_OUT], compiled(batch)[ENCODER_OUT]
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
        weight = encoder.embedding.input.weight
        gradients = [torch.autograd.grad(x.pow(2).sum(), weight)[0] for x in (out, expected)]
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
