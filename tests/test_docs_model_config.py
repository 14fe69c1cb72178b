"""`docs/model_config.md` says of each key what RLlib's modules with attention make of it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModule

from rllib_attention import use_attention
from rllib_attention.rllib_keys import KNOWN

PAGE = (Path(__file__).parents[1] / "docs" / "model_config.md").read_text()
VECTOR, IMAGE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(0, 255, (42, 42, 3), np.uint8)
DISCRETE, CONTINUOUS = gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,))
# The algorithm that stands for each column of the first table.
COLUMNS: list[tuple[type[AlgorithmConfig], gym.Space]] = [
    (PPOConfig, CONTINUOUS),
    (BCConfig, CONTINUOUS),
    (DQNConfig, DISCRETE),
    (SACConfig, CONTINUOUS),
]
BASE: dict[str, Any] = {"fcnet_hiddens": [12, 8], "head_fcnet_hiddens": [4]}
# Another value of each key than `BASE` and the algorithms have.
OTHER: dict[str, Any] = {
    "conv_filters": [[4, 4, 4], [8, 4, 4]],
    "fcnet_hiddens": [8],
    "free_log_std": True,
    "fusionnet_hiddens": [8],
    "head_fcnet_hiddens": [6],
    "log_std_clip_param": 1.0,
    "lstm_cell_size": 8,
    "vf_share_layers": True,
} | {
    key: value
    for end, value in [
        ("activation", "swish"),
        ("use_layernorm", True),
        ("kernel_initializer", "zeros_"),
        ("bias_initializer", "ones_"),
        ("prev_action", True),
        ("prev_reward", True),
    ]
    for key in [field.name for field in dataclasses.fields(DefaultModelConfig)]
    if key.endswith(end)
}


def section(title: str) -> list[list[str]]:
    """Returns the rows of the table below a heading, without its head."""
    text = re.split(r"^## ", PAGE.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]
    rows = [line.strip("| ").split(" | ") for line in text.split("\n") if line.startswith("|")]
    return rows[2:]


def keys(title: str) -> list[str]:
    return [re.findall(r"`(\w+)`", row[0])[0] for row in section(title)]


def build(
    config_class: type[AlgorithmConfig], obs: gym.Space, action: gym.Space, **changes: Any
) -> RLModule:
    config = config_class().environment(observation_space=obs, action_space=action)
    if config_class is BCConfig:
        config.offline_data(input_=["/recorded"], input_read_episodes=True)
    config.rl_module(model_config=BASE | changes)
    use_attention(config, num_layers=1, dim=8, num_heads=2, window=3)
    spaces = dict.fromkeys(("__env__", "__env_single__", "default_policy"), (obs, action))
    spec = config.get_rl_module_spec(spaces=spaces)
    spec.observation_space, spec.action_space = obs, action
    torch.manual_seed(0)
    return spec.build()


def fingerprint(module: RLModule) -> str:
    """Returns what tells modules apart: their parts, and their weights from one seed."""
    weights = {name: (x.shape, float(x.double().sum())) for name, x in module.state_dict().items()}
    # RLlib keeps some activations as classes, which are no parts.
    kept = [x for part in module.modules() for x in vars(part).values() if isinstance(x, type)]
    return f"{module}{weights}{kept}"


def outcome(config_class, obs, action, key: str) -> str:
    try:
        changed = build(config_class, obs, action, **{key: OTHER[key]})
    except AssertionError:
        return "refused by RLlib"
    same = fingerprint(changed) == fingerprint(build(config_class, obs, action))
    return "no" if same else "yes"


@pytest.mark.parametrize("row", section("Read"), ids=lambda row: row[0])
def test_keys_are_read_where_the_table_says(row):
    [key] = re.findall(r"`(\w+)`", row[0])
    found = [outcome(config_class, VECTOR, action, key) for config_class, action in COLUMNS]
    assert found == row[2:]


@pytest.mark.parametrize("key", keys("Read for images"))
def test_keys_of_images(key):
    assert outcome(PPOConfig, IMAGE, DISCRETE, key) == "yes"
    assert outcome(PPOConfig, VECTOR, DISCRETE, key) == "no"


@pytest.mark.parametrize("key", [key for key in keys("Read") if key.startswith("fcnet_")])
def test_keys_of_vectors_are_not_read_for_images(key):
    assert outcome(PPOConfig, IMAGE, DISCRETE, key) == "no"


@pytest.mark.parametrize("key", keys("Not read"))
def test_keys_that_nothing_reads(key):
    assert outcome(PPOConfig, VECTOR, DISCRETE, key) == "no"
    assert outcome(SACConfig, VECTOR, CONTINUOUS, key) == "no"


@pytest.mark.parametrize("key", keys("Refused"))
def test_refused_keys(key):
    with pytest.raises(ValueError, match=key):
        build(PPOConfig, VECTOR, DISCRETE, **{key: 8 if key in KNOWN else True})


def test_max_seq_len_is_taken_over():
    config = PPOConfig().environment("CartPole-v1").rl_module(model_config={"max_seq_len": 7})
    assert use_attention(config).model_config["max_seq_len"] == 7
    default = PPOConfig().environment("CartPole-v1").rl_module(model_config=DefaultModelConfig())
    assert use_attention(default).model_config["max_seq_len"] != DefaultModelConfig().max_seq_len


def test_unknown_names():
    changed = build(PPOConfig, VECTOR, DISCRETE, fcnet_hidden=[8])
    assert fingerprint(changed) == fingerprint(build(PPOConfig, VECTOR, DISCRETE))
    with pytest.raises(TypeError, match="fcnet_hidden"):
        DefaultModelConfig(fcnet_hidden=[8])


def test_every_key_of_rllib_is_on_the_page():
    fields = [field.name for field in dataclasses.fields(DefaultModelConfig)]
    fields = [name for name in fields if not name.endswith("_kwargs")]
    titles = ("Read", "Read for images", "Shared with attention", "Refused", "Not read")
    assert set(fields) <= {key for title in titles for key in keys(title)}
