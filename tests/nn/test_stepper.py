"""Rollouts step by step against whole episodes: prefill, ragged resets, weights, far clocks."""

import numpy as np
import pytest
import torch

from rllib_attention.nn import KVCache, Stepper
from rllib_attention.nn.positions import POSITIONS
from tests.nn.rows import DIM, HEAD_SIZE, HEADS, build, episode

OPTIONS = [
    {"position": position, "gate": gate, "num_layers": num_layers, "window": window, "ffn_dim": ffn}
    for position, gate in [
        ("rotary", "residual"),
        ("recency", "residual"),
        ("relative_bias", "residual"),
        ("relative", "gru"),
        ("none", "residual"),
    ]
    for num_layers, window in [(1, 1), (1, 6), (2, 4), (3, 3), (2, 40)]
    for ffn in (0, 8)
]
OPTIONS += [
    options | {"num_layers": num_layers, "window": window, "dilation": dilation}
    for options in OPTIONS[1::10]
    for num_layers, window, dilation in [(2, 4, 2), (2, 3, 5), (3, 3, 3), (2, 9, 5)]
]
OPTIONS += [options | {"start_embedding": True} for options in OPTIONS]
# Slots in another order than the rows, and some that are never used.
SLOTS = np.array([5, 0, 3])
NUM_SLOTS = 6


class Rollout:
    """Plays episodes of given lengths in some slots, one after another, out of step.

    Args:
        model: The transformer.
        lengths: Lengths of each slot's episodes; None for one that never ends.
        clock: Time step at which every episode begins.
        dilation: The model's.
    """

    def __init__(self, model, lengths, clock, dilation=1):
        self.model, self.clock, self.dilation = model, clock, dilation
        self.lengths = [list(row) for row in lengths]
        self.tokens = [[] for _ in SLOTS]
        self.refresh()

    def refresh(self):
        """Takes on the model's weights: an empty cache, filled from the episodes so far."""
        self.stepper = Stepper(self.model)
        self.cache = KVCache(
            strides=self.model.strides,
            num_slots=NUM_SLOTS,
            num_heads=HEADS,
            head_size=HEAD_SIZE,
            window=self.model.window,
            device=torch.device("cpu"),
            dtype=torch.float32,
            distance_bias=self.model.distance_bias,
        )
        for ring in self.cache.layers:
            ring.fill_(1e6)  # what was never written must not be read
        context = self.model.context_len
        recent = [tokens[max(0, len(tokens) - context) :] for tokens in self.tokens]
        length = np.array([len(tokens) for tokens in recent])
        if length.any():
            tokens = torch.stack([token for row in recent for token in row])
            with torch.no_grad():
                self.model.prefill(tokens, length, self.cache, SLOTS, self.steps())

    def steps(self):
        return np.array([self.clock + len(tokens) for tokens in self.tokens])

    def starts(self):
        return np.full(len(SLOTS), self.clock)

    def step(self):
        """Returns the next step's outputs, and those of whole episodes."""
        for slot, tokens in enumerate(self.tokens):
            if self.lengths[slot] and len(tokens) == self.lengths[slot][0]:
                self.lengths[slot].pop(0)
                tokens.clear()
        new = torch.randn(len(SLOTS), DIM)
        out = self.stepper.step(new, self.cache, SLOTS, self.steps(), self.starts())
        for tokens, token in zip(self.tokens, new, strict=True):
            tokens.append(token)
        with torch.no_grad():
            whole = [
                episode(self.model, torch.stack(tokens), self.dilation)[-1]
                for tokens in self.tokens
            ]
        return out, torch.stack(whole)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_steps_equal_whole_episodes(options):
    """Through ragged resets, with new weights twice on the way."""
    model = build(**options)
    dilation = options.get("dilation", 1)
    rollout = Rollout(model, [[7, 2, 30], [], [1, 12, 5]], 0, dilation)
    for step in range(30):
        if step in (6, 17):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.8)
            rollout.refresh()
        torch.testing.assert_close(*rollout.step(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("clock", [2040, 123_456, 10**8])
@pytest.mark.parametrize("dilation", [1, 3])
def test_the_clock_changes_nothing(position, clock, dilation):
    model = build(position=position, num_layers=2, window=4, dilation=dilation)
    rollout = Rollout(model, [[3, 30], [], [8, 30]], clock, dilation)
    for step in range(16):
        if step == 9:
            rollout.refresh()
        torch.testing.assert_close(*rollout.step(), atol=1e-5, rtol=1e-5)


def test_weights_written_later_are_not_seen():
    """A stepper is made for the weights of its time, which its caller has to notice."""
    model = build(num_layers=1, window=2, position="relative")
    rollout = Rollout(model, [[], [], []], clock=0)
    assert not rollout.stepper._layers[0].rows.requires_grad
    with torch.no_grad():
        model.blocks[0].attention.position.project.weight.mul_(2)
    rollout.step()
    out, expected = rollout.step()
    assert not torch.allclose(out, expected, atol=1e-4)
