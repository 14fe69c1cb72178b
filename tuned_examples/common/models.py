"""The choice of memory: attention, or one of the controls it is compared with."""

import argparse
import dataclasses
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

# Options of the command line that are fields of `AttentionConfig`.
ATTENTION_FIELDS = (
    "num_layers",
    "dim",
    "num_heads",
    "window",
    "max_seq_len",
    "prev_actions",
    "prev_rewards",
)


def set_model(config: AlgorithmConfig, args: argparse.Namespace) -> AlgorithmConfig:
    """Gives the algorithm the model that the command line asks for.

    Args:
        config: The script's config, with the encoder for single observations (if any special one)
            set by `config.rl_module(model_config=...)`.
        args: The parsed command line.

    Returns:
        The changed config.
    """
    setters = {
        "attention": _set_attention,
        "mlp": _set_mlp,
        "lstm": _set_lstm,
        "gtrxl": _set_gtrxl,
    }
    return setters[args.model](config, args)


def _set_attention(config: AlgorithmConfig, args: argparse.Namespace) -> AlgorithmConfig:
    from rllib_attention import AttentionConfig, use_attention

    return use_attention(
        config, AttentionConfig(**{name: getattr(args, name) for name in ATTENTION_FIELDS})
    )


def _set_mlp(config: AlgorithmConfig, args: argparse.Namespace) -> AlgorithmConfig:
    # As many hidden layers of the same width as the attention model has blocks and tokenizer.
    hiddens = [args.dim] * (args.num_layers + 1)
    return config.rl_module(model_config={**_own_model(config), "fcnet_hiddens": hiddens})


def _set_lstm(config: AlgorithmConfig, args: argparse.Namespace) -> AlgorithmConfig:
    return config.rl_module(
        model_config={
            **_own_model(config),
            "use_lstm": True,
            "lstm_cell_size": args.dim,
            "max_seq_len": args.max_seq_len,
        }
    )


def _set_gtrxl(config: AlgorithmConfig, args: argparse.Namespace) -> AlgorithmConfig:
    own = _own_model(config)
    shared = ("fcnet_hiddens", "fcnet_activation", "conv_filters", "vf_share_layers")
    model = {key: own[key] for key in shared if own.get(key) is not None}
    config.api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
    config.rl_module(model_config={})
    # The old stack reads one batch size for all learners together.
    config.training(
        train_batch_size=config.total_train_batch_size, model={**model, **gtrxl_model(args)}
    )
    return config


def gtrxl_model(args: argparse.Namespace) -> dict[str, Any]:
    """Names the attention options in the words of RLlib's old `model` config.

    Args:
        args: The parsed command line.

    Returns:
        The entries that switch on RLlib's GTrXL at the same width, depth and window.
    """
    memory = args.window - 1  # RLlib counts the rows beside the current step.
    return {
        "use_attention": True,
        "attention_num_transformer_units": args.num_layers,
        "attention_dim": args.dim,
        "attention_num_heads": args.num_heads,
        "attention_head_dim": args.dim // args.num_heads,
        "attention_memory_inference": memory,
        "attention_memory_training": memory,
        "attention_position_wise_mlp_dim": args.dim,
        "max_seq_len": args.max_seq_len,
    }


def _own_model(config: AlgorithmConfig) -> dict[str, Any]:
    """Returns what the script itself set as the model config, as a dict."""
    own = config._model_config or {}
    return dataclasses.asdict(own) if dataclasses.is_dataclass(own) else dict(own)
