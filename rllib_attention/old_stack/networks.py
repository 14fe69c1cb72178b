"""The new stack's networks, built from the old stack's model dict."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.spaces.simplex import Simplex
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space
from torch import nn

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.catalog import ATTENTION, attention_catalog

# Keys of the old stack's model dict that the new stack has under another name.
_RENAMED = {
    "fcnet_weights_initializer": "fcnet_kernel_initializer",
    "fcnet_weights_initializer_config": "fcnet_kernel_initializer_kwargs",
    "fcnet_bias_initializer_config": "fcnet_bias_initializer_kwargs",
    "conv_kernel_initializer_config": "conv_kernel_initializer_kwargs",
    "conv_bias_initializer_config": "conv_bias_initializer_kwargs",
    "post_fcnet_hiddens": "head_fcnet_hiddens",
    "post_fcnet_activation": "head_fcnet_activation",
    "post_fcnet_weights_initializer": "head_fcnet_kernel_initializer",
    "post_fcnet_weights_initializer_config": "head_fcnet_kernel_initializer_kwargs",
    "post_fcnet_bias_initializer": "head_fcnet_bias_initializer",
    "post_fcnet_bias_initializer_config": "head_fcnet_bias_initializer_kwargs",
}


def attention_options(options: dict[str, Any], max_seq_len: int) -> AttentionConfig:
    """Returns the model's options, with the chunk length that RLlib uses.

    Args:
        options: `custom_model_config`.
        max_seq_len: The model dict's.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is unknown or wrong, or the chunk lengths differ.
    """
    given = options.get("max_seq_len")
    if given is not None and given != max_seq_len:
        raise ValueError(
            f"`custom_model_config` asks for max_seq_len={given}, but RLlib cuts sequences by the "
            f"model dict's own max_seq_len={max_seq_len}: expected the same. Use "
            f'`config.training(model={{"max_seq_len": {given}}})`.'
        )
    return AttentionConfig.from_dict({**options, "max_seq_len": max_seq_len})


def new_stack_options(model_config: dict[str, Any], attention: AttentionConfig) -> dict[str, Any]:
    """Returns the new stack's `model_config` for the options of the old stack's model dict.

    Args:
        model_config: RLlib's model dict.
        attention: The options of attention.
    """
    options = {_RENAMED.get(key, key): value for key, value in model_config.items()}
    known = {field.name for field in dataclasses.fields(DefaultModelConfig)}
    options = {key: value for key, value in options.items() if key in known}
    return {**options, ATTENTION: attention.to_dict()}


def new_stack_catalog(
    obs_space: gym.Space,
    action_space: gym.Space,
    model_config: dict[str, Any],
    attention: AttentionConfig,
) -> PPOCatalog:
    """Returns the new stack's catalog with the options of the old stack's model dict.

    Args:
        obs_space: Space of preprocessed observations.
        action_space: The action space.
        model_config: RLlib's model dict.
        attention: The options of attention.
    """
    catalog_class: Any = attention_catalog(PPOCatalog)
    return catalog_class(obs_space, action_space, new_stack_options(model_config, attention))


def policy_head(catalog: PPOCatalog, model_config: dict[str, Any], num_outputs: int) -> nn.Module:
    """Returns the new stack's policy head; a plain one for distributions that it does not have.

    Args:
        catalog: From `new_stack_catalog`.
        model_config: RLlib's model dict.
        num_outputs: Inputs of the action distribution.
    """
    if has_new_stack_actions(catalog.action_space, model_config):
        return catalog.build_pi_head(framework="torch")
    config = dataclasses.replace(catalog.vf_head_config, output_layer_dim=num_outputs)
    return config.build(framework="torch")


def has_new_stack_actions(action_space: gym.Space, model_config: dict[str, Any]) -> bool:
    """Returns whether the new stack has the distribution of an action space of the old one.

    Args:
        action_space: The action space.
        model_config: RLlib's model dict.
    """
    return not model_config.get("custom_action_dist") and not any(
        isinstance(space, Simplex)
        or (isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.integer))
        for space in tree.flatten(get_base_struct_from_space(action_space))
    )
