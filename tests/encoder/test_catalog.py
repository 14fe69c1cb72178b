"""Catalogs: which observations get an attention encoder, and what to do about the others."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import AttentionConfig, attention_catalog
from rllib_attention.encoder.encoder import AttentionEncoderConfig
from tests.harness import IMAGE, VECTOR, build, prepare

FLATTENED = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Dict({"a": spaces.Box(0, 1, (2, 2)), "b": spaces.Tuple((spaces.Discrete(2), VECTOR))}),
]
NOT_FLATTENED = [
    spaces.Text(5),
    spaces.Sequence(spaces.Discrete(3)),
    spaces.Graph(VECTOR, None),
    spaces.Dict({"a": VECTOR, "b": spaces.Text(5)}),
    spaces.Tuple((VECTOR, spaces.Sequence(VECTOR))),
]


def encoder_config(space: gym.Space):
    model_config = vars(DefaultModelConfig()) | {"attention": {}, "max_seq_len": 8}
    catalog_class = attention_catalog(PPOCatalog)
    return catalog_class._get_encoder_config(space, model_config, spaces.Discrete(2))


@pytest.mark.parametrize("space", [VECTOR, IMAGE, spaces.Box(0, 255, (84, 84, 4), np.uint8)])
def test_vectors_and_images_get_an_encoder(space):
    config = encoder_config(space)
    assert isinstance(config, AttentionEncoderConfig)
    assert config.attention == AttentionConfig(max_seq_len=8)


def refuses(space: gym.Space, fix: str):
    message = (
        "Attention needs observations that RLlib can tokenize, Box of 1 or 3 dimensions, got "
        f"{space}. Fix: {fix}"
    )
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.mark.parametrize("space", FLATTENED, ids=str)
def test_what_flatten_observations_takes_is_sent_there(space):
    with refuses(space, "Put RLlib's FlattenObservations in front: `config.env_runners("):
        encoder_config(space)
    piece = FlattenObservations(space, spaces.Discrete(2))
    encoder_config(piece.observation_space)


@pytest.mark.parametrize("space", NOT_FLATTENED, ids=str)
def test_what_it_does_not_take_is_not(space):
    with refuses(space, "Encode it as such a Box in an environment wrapper"):
        encoder_config(space)


@pytest.mark.parametrize("shape", [(), (4, 4), (2, 2, 2, 2)])
def test_boxes_of_other_dimensions(shape):
    space = spaces.Box(0, 1, shape)
    with refuses(space, "Reshape it in an environment wrapper"):
        encoder_config(space)


def test_the_user_sees_the_message_when_the_algorithm_is_built():
    config = prepare(PPOConfig(), observation_space=spaces.Discrete(3))
    with pytest.raises(ValueError, match="Attention needs observations that RLlib can tokenize"):
        build(config)
