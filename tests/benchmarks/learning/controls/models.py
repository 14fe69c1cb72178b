"""Attention, and RLlib's own models at the same width, depth and chunk length."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention import AttentionConfig, use_attention


def set_mlp(config: AlgorithmConfig, attention: AttentionConfig) -> AlgorithmConfig:
    """Gives RLlib's MLP as many hidden layers as attention has blocks and tokenizer."""
    hiddens = [attention.dim] * (attention.num_layers + 1)
    return config.rl_module(model_config={**_own_model(config), "fcnet_hiddens": hiddens})


def set_lstm(config: AlgorithmConfig, attention: AttentionConfig) -> AlgorithmConfig:
    """Gives RLlib's LSTM the width and the chunk length of attention; it has one layer."""
    return config.rl_module(
        model_config={
            **_own_model(config),
            "use_lstm": True,
            "lstm_cell_size": attention.dim,
            "max_seq_len": attention.max_seq_len,
        }
    )


def set_gtrxl(config: AlgorithmConfig, attention: AttentionConfig) -> AlgorithmConfig:
    """Moves the config to the old stack, with RLlib's GTrXL of attention's sizes."""
    own = _own_model(config)
    shared = ("fcnet_hiddens", "fcnet_activation", "conv_filters", "vf_share_layers")
    model = {key: own[key] for key in shared if own.get(key) is not None}
    config.api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
    config.rl_module(model_config={})
    # The old stack reads one batch size for all learners together.
    return config.training(
        train_batch_size=config.total_train_batch_size, model=model | gtrxl_model(attention)
    )


def gtrxl_model(attention: AttentionConfig) -> dict[str, Any]:
    """Names the sizes of attention in the words of RLlib's old `model` config.

    Args:
        attention: The sizes.

    Returns:
        The entries that switch on RLlib's GTrXL at the same width, depth and window.
    """
    memory = attention.window - 1  # RLlib counts the rows beside the current step.
    return {
        "use_attention": True,
        "attention_num_transformer_units": attention.num_layers,
        "attention_dim": attention.dim,
        "attention_num_heads": attention.num_heads,
        "attention_head_dim": attention.head_size,
        "attention_memory_inference": memory,
        "attention_memory_training": memory,
        "attention_position_wise_mlp_dim": attention.dim,
        "max_seq_len": attention.max_seq_len,
    }


def _own_model(config: AlgorithmConfig) -> dict[str, Any]:
    """Returns what the script itself set as the model config, as a dict."""
    own = config._model_config or {}
    return dataclasses.asdict(own) if dataclasses.is_dataclass(own) else dict(own)


# Each sets one model for a config that has the task and PPO's options.
MODELS: dict[str, Callable[[AlgorithmConfig, AttentionConfig], AlgorithmConfig]] = {
    "mlp": set_mlp,
    "lstm": set_lstm,
    "gtrxl": set_gtrxl,
    "attention": use_attention,
}
