"""Small encoders, their batches, and a runner's way through them."""

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
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
