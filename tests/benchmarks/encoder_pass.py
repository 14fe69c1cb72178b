"""Forward and backward pass of the encoder alone, on a synthetic batch of full rows."""

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import AttentionConfig, AttentionEncoder, AttentionEncoderConfig
from rllib_attention.encoder.inputs import ChunkContext
from tests.benchmarks.timing import seconds

SPACE = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)


class EncoderPass:
    """An encoder with its batch; a call does one pass and returns its seconds.

    Args:
        attention: The model; its `max_seq_len` is the length of a row.
        rows: Rows in the batch, each with a full context before it.
    """

    def __init__(self, attention: AttentionConfig, rows: int):
        self.encoder = _build_encoder(attention)
        context, steps = attention.context_len, attention.max_seq_len
        state = ChunkContext(
            context=torch.randn(rows, context, *SPACE.shape),
            context_length=torch.full((rows,), context),
            chunk_length=torch.full((rows,), steps),
        ).to_state()
        obs = torch.randn(rows, steps, *SPACE.shape)
        self._batch = {Columns.OBS: obs, Columns.STATE_IN: state}

    def __call__(self) -> float:
        """Returns the seconds of one forward and backward pass."""
        return seconds(self._pass)

    def _pass(self) -> None:
        self.encoder.zero_grad()
        self.encoder(self._batch)[ENCODER_OUT].sum().backward()


def _build_encoder(attention: AttentionConfig) -> AttentionEncoder:
    model_config = vars(DefaultModelConfig(fcnet_hiddens=[attention.dim, attention.dim]))
    return AttentionEncoderConfig(
        attention=attention,
        tokenizer_config=PPOCatalog.get_tokenizer_config(SPACE, model_config),
        observation_space=SPACE,
        action_space=gym.spaces.Discrete(2),
    ).build()
