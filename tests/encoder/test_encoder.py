"""The encoder on its own: dropout, copies, what it refuses, and a cache that notices weights."""

import copy
import pickle
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.configs import MLPEncoderConfig

from rllib_attention import AttentionConfig, AttentionEncoderConfig
from rllib_attention.encoder.inputs import ChunkContext, RolloutStep
from rllib_attention.encoder.rollout_memory import RolloutMemory

SPACE = gym.spaces.Box(-1, 1, (3,), np.float32)
TOKENIZER = MLPEncoderConfig(input_dims=(3,), hidden_layer_dims=[], output_layer_dim=8)


def build(**options):
    torch.manual_seed(0)
    options = {"dim": 8, "num_heads": 2, "num_layers": 2, "window": 4, "ffn_dim": 8} | options
    return AttentionEncoderConfig(
        attention=AttentionConfig(**options),
        tokenizer_config=TOKENIZER,
        observation_space=SPACE,
        action_space=gym.spaces.Discrete(2),
    ).build()


def chunk(steps=10, context=6):
    state = ChunkContext(
        context=torch.randn(2, context, 3),
        context_length=torch.tensor([context, 0]),
        chunk_length=torch.tensor([steps, min(4, steps)]),
    )
    return {Columns.OBS: torch.randn(2, steps, 3), Columns.STATE_IN: state.to_state()}


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


class Rollout:
    """Drives an encoder step by step as a runner does."""

    def __init__(self, encoder, rows):
        self.encoder, self.rows, self.step = encoder, rows, 0
        self.memory = RolloutMemory([encoder], "the RLModule")
        self.open([str(i) for i in range(len(rows))])

    def open(self, keys):
        self.slots = [self.memory.slots.open(key) for key in keys]
        for slot in self.slots:
            self.memory.history.begin(slot, 0)

    def write(self, step):
        for slot, row in zip(self.slots, self.rows, strict=True):
            self.memory.history.write(slot, step, row[step].numpy(), None)

    def run(self):
        self.write(self.step)
        self.step += 1
        return self.forward(self.step - 1)

    def forward(self, step):
        handle = torch.tensor([[slot, step] for slot in self.slots])
        batch = {Columns.OBS: self.rows[:, step], Columns.STATE_IN: RolloutStep(handle).to_state()}
        return self.encoder(batch)[ENCODER_OUT]

    def expected(self):
        """The newest step from all raw observations, without a cache."""
        empty = self.encoder.get_initial_state()
        state = {k: torch.stack([v] * len(self.rows)) for k, v in empty.items()}
        batch = {Columns.OBS: self.rows[:, : self.step], Columns.STATE_IN: state}
        return self.encoder(batch)[ENCODER_OUT][:, -1].detach()


def replace_weight(encoder):
    encoder.embedding.input.weight = torch.nn.Parameter(encoder.embedding.input.weight * 1.5)


def load_state(encoder):
    encoder.load_state_dict({k: v * 1.5 for k, v in encoder.state_dict().items()})


def load_by_assignment(encoder):
    state = {k: v * 1.5 for k, v in encoder.state_dict().items()}
    encoder.load_state_dict(state, assign=True)


def set_data(encoder):
    encoder.embedding.input.weight.data = encoder.embedding.input.weight * 1.5


def optimise(encoder):
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.5)
    sum(p.sum() for p in encoder.parameters()).backward()
    optimiser.step()


@pytest.mark.parametrize(
    "change", [replace_weight, load_state, load_by_assignment, set_data, optimise]
)
def test_cache_is_rebuilt_when_weights_change(change):
    encoder = build().eval()
    rollout = Rollout(encoder, torch.randn(3, 25, 3))
    for step in range(20):
        if step in (2, 13):
            before = rollout.expected() if step else None
            change(encoder)
            assert not torch.allclose(rollout.expected(), before)
        torch.testing.assert_close(rollout.run(), rollout.expected(), atol=1e-5, rtol=0)


def test_a_batch_of_another_time_is_refused():
    rollout = Rollout(build().eval(), torch.randn(2, 5, 3))
    rollout.run()
    with pytest.raises(RuntimeError, match="history stands at steps"):
        rollout.forward(3)


def test_a_slot_of_another_episode_is_not_mistaken_for_it():
    """Random actions skip the forward pass: a slot may pass on unnoticed, at the same step."""
    encoder = build().eval()
    first = Rollout(encoder, torch.randn(2, 9, 3))
    for _ in range(5):
        first.run()
    second = Rollout.__new__(Rollout)
    second.__dict__ |= first.__dict__ | {"rows": torch.randn(2, 9, 3), "step": 0}
    first.memory.slots.collect([], running=True)
    second.open(["2", "3"])
    assert second.slots == first.slots
    for step in range(5):
        second.write(step)
    second.step = 5
    torch.testing.assert_close(second.run(), second.expected(), atol=1e-5, rtol=0)


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
