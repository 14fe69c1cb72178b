"""One task and one model to a config, with all options but the model's the same."""

from typing import Any

from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

from rllib_attention import use_attention
from tests.benchmarks.learning.envs import make_stacked
from tests.benchmarks.learning.tasks import TASKS, Task

ATTENTION, LSTM, GTRXL, MLP, STACKED = "attention", "lstm", "gtrxl", "mlp", "stacked"
# RLlib has no memory for replay; an MLP that sees the latest observations is what is done there.
_REPLAYED = (ATTENTION, MLP, STACKED)
MODELS = {"ppo": (ATTENTION, LSTM, GTRXL, MLP), "sac": _REPLAYED, "dqn": _REPLAYED}
ALL_MODELS = (*MODELS["ppo"], STACKED)

DIM, CHUNK, NUM_ENVS, FRAMES = 64, 64, 16, 4
# RLlib's GTrXL in the words of its old model config, at the sizes of attention's defaults.
_GTRXL = {
    "use_attention": True,
    "max_seq_len": CHUNK,
    "attention_dim": DIM,
    "attention_num_transformer_units": 2,
    "attention_num_heads": 4,
    "attention_head_dim": DIM // 4,
    "attention_memory_inference": 31,
    "attention_memory_training": 31,
    "attention_position_wise_mlp_dim": DIM,
}


def make_config(
    task_name: str,
    model: str,
    seed: int,
    fields: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> AlgorithmConfig:
    """Returns the config of one run.

    Args:
        task_name: One of `TASKS`.
        model: One of `MODELS` of the task's algorithm.
        seed: Seed of everything.
        fields: Fields of `AttentionConfig` that differ from their defaults; of these an LSTM reads
            `max_seq_len`.
        training: Options of `config.training` that differ from the benchmark's.

    Returns:
        A config of the new stack; for GTrXL of the old one.

    Raises:
        ValueError: If the model cannot be run with the task's algorithm.
    """
    task = TASKS[task_name]
    if model not in MODELS[task.algorithm]:
        raise ValueError(f"{task_name}: expected one of {MODELS[task.algorithm]}, got {model!r}")
    make = make_stacked(task.make, FRAMES) if model == STACKED else task.make
    tune.register_env(task_name, make)
    config = {"ppo": _ppo, "sac": _sac, "dqn": _dqn}[task.algorithm](task)
    config.environment(task_name, env_config=task.env_config)
    config.env_runners(num_env_runners=0)
    config.debugging(seed=seed, log_level="ERROR")
    # Before the model: chunk lengths follow from minibatches.
    config.training(**(training or {}))
    return _with_model(config, model, fields or {})


def _with_model(config: AlgorithmConfig, model: str, fields: dict[str, Any]) -> AlgorithmConfig:
    if model == GTRXL:
        config.api_stack(
            enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
        )
        plain = {"fcnet_hiddens": [DIM], "vf_share_layers": True}
        return config.training(
            train_batch_size=config.train_batch_size_per_learner, model=plain | _GTRXL
        )
    # As many hidden layers as tokenizer and blocks.
    hiddens = [DIM] * (3 if model in (MLP, STACKED) else 1)
    own: dict[str, Any] = {"fcnet_hiddens": hiddens, "vf_share_layers": True}
    if model == LSTM:
        own |= {"use_lstm": True, "lstm_cell_size": DIM}
        own["max_seq_len"] = fields.get("max_seq_len", CHUNK)
    config.rl_module(model_config=own)
    return use_attention(config, **fields) if model == ATTENTION else config


def _ppo(task: Task) -> AlgorithmConfig:
    config = PPOConfig().env_runners(num_envs_per_env_runner=NUM_ENVS)
    return config.training(
        gamma=task.gamma,
        lr=5e-4,
        train_batch_size_per_learner=2048,
        minibatch_size=512,
        num_epochs=6,
        # Where returns are large the value loss must not drown the policy's.
        vf_loss_coeff=0.05 if task.high > 10 else 0.5,
        clip_param=0.2,
        grad_clip=0.5,
    )


def _sac(task: Task) -> AlgorithmConfig:
    config = SACConfig().env_runners(num_envs_per_env_runner=4, rollout_fragment_length=1)
    config.training(
        gamma=task.gamma,
        lr=None,  # RLlib refuses it beside the three below
        actor_lr=5e-4,
        critic_lr=5e-4,
        alpha_lr=5e-4,
        train_batch_size_per_learner=128,
        training_intensity=64,
        num_steps_sampled_before_learning_starts=1_000,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 100_000},
    )
    return config.reporting(min_sample_timesteps_per_iteration=1_000)


def _dqn(task: Task) -> AlgorithmConfig:
    config = DQNConfig().env_runners(num_envs_per_env_runner=8, rollout_fragment_length=4)
    config.training(
        gamma=task.gamma,
        lr=5e-4,
        n_step=1,
        train_batch_size_per_learner=128,
        training_intensity=8,
        target_network_update_freq=1_000,
        num_steps_sampled_before_learning_starts=2_000,
        epsilon=[(0, 1.0), (20_000, 0.02)],
        replay_buffer_config={
            "type": "PrioritizedEpisodeReplayBuffer",
            "capacity": 50_000,
            "alpha": 0.6,
            "beta": 0.4,
        },
    )
    return config.reporting(min_sample_timesteps_per_iteration=2_000)
