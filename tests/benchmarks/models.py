"""Attention and RLlib's own models at equal width, layers, window, sub-environments and batch."""

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.models.configs import ModelConfig, RecurrentEncoderConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_attention import AttentionConfig, use_attention
from tests.benchmarks.environment import IdleEnv
from tests.benchmarks.labels import ATTENTION, DEEP_LSTM, GTRXL, LSTM
from tests.benchmarks.options import Options, Size


class DeepLSTMCatalog(PPOCatalog):
    """Builds as many LSTM layers as `model_config["num_lstm_layers"]` says; RLlib builds one."""

    @classmethod
    def _get_encoder_config(cls, *args: Any, **kwargs: Any) -> ModelConfig:
        config = super()._get_encoder_config(*args, **kwargs)
        if isinstance(config, RecurrentEncoderConfig):
            config.num_layers = kwargs["model_config_dict"]["num_lstm_layers"]
        return config


def attention_config(size: Size, options: Options, **overrides: Any) -> AttentionConfig:
    """Returns the model that is compared with RLlib's.

    Args:
        size: Width and window.
        options: The command line.
        **overrides: Other fields to change.

    Returns:
        Its options.
    """
    fields: dict[str, Any] = {
        "dim": size.dim,
        "window": size.window,
        "num_layers": options.num_layers,
        "num_heads": options.num_heads,
        "ffn_dim": options.ffn_factor * size.dim,
        "max_seq_len": options.chunk,
    }
    return AttentionConfig(**(fields | overrides))


def ppo_config(model: str, size: Size, options: Options, **overrides: Any) -> AlgorithmConfig:
    """Returns the PPO config of one model.

    Args:
        model: One of `labels.PPO_MODELS`.
        size: Width and window.
        options: The command line.
        **overrides: Fields of `AttentionConfig` to change.

    Returns:
        A config of the new stack, for `GTRXL` of the old one.
    """
    config = _common(PPOConfig(), options)
    config.training(num_epochs=options.num_epochs, minibatch_size=options.minibatch)
    hiddens = {"fcnet_hiddens": [size.dim, size.dim], "vf_share_layers": True}
    if model == GTRXL:
        config.api_stack(
            enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
        )
        return config.training(
            train_batch_size=options.batch, model={**hiddens, **_gtrxl(size, options)}
        )
    config.training(train_batch_size_per_learner=options.batch)
    if model in (LSTM, DEEP_LSTM):
        hiddens |= {"use_lstm": True, "lstm_cell_size": size.dim, "max_seq_len": options.seq_len}
    if model == DEEP_LSTM:
        hiddens["num_lstm_layers"] = options.num_layers
        config.rl_module(rl_module_spec=RLModuleSpec(catalog_class=DeepLSTMCatalog))
    config.rl_module(model_config=hiddens)
    if model == ATTENTION:
        use_attention(config, attention_config(size, options, **overrides))
    return config


def replay_config(
    algorithm: str, size: Size, options: Options, *, run_len: int | None = None
) -> AlgorithmConfig:
    """Returns the config of an algorithm that replays.

    Args:
        algorithm: "sac" (continuous actions, uniform replay) or "dqn" (prioritised replay).
        size: Width and window.
        options: The command line.
        run_len: Attention's `max_seq_len`; None for the MLP.

    Returns:
        A config of the new stack.
    """
    is_sac = algorithm == "sac"
    config = _common(SACConfig() if is_sac else DQNConfig(), options)
    config.environment(env_config={"length": options.episode_length, "continuous": is_sac})
    buffer = (
        {"type": "EpisodeReplayBuffer"}
        if is_sac
        else {"type": "PrioritizedEpisodeReplayBuffer", "alpha": 0.6, "beta": 0.4}
    )
    config.training(
        train_batch_size_per_learner=options.replay_batch,
        replay_buffer_config={**buffer, "capacity": 50_000},
    )
    config.rl_module(model_config={"fcnet_hiddens": [size.dim, size.dim]})
    if run_len is not None:
        use_attention(config, attention_config(size, options, max_seq_len=run_len))
    return config


def _common(config: AlgorithmConfig, options: Options) -> AlgorithmConfig:
    config.environment(IdleEnv, env_config={"length": options.episode_length})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=options.num_envs)
    return config.debugging(log_level="ERROR", seed=0)


def _gtrxl(size: Size, options: Options) -> dict[str, Any]:
    return {
        "use_attention": True,
        "max_seq_len": options.seq_len,
        "attention_num_transformer_units": options.num_layers,
        "attention_dim": size.dim,
        "attention_num_heads": options.num_heads,
        "attention_head_dim": size.dim // options.num_heads,
        "attention_memory_inference": size.window - 1,
        "attention_memory_training": size.window - 1,
        "attention_position_wise_mlp_dim": options.ffn_factor * size.dim,
    }
