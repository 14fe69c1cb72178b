"""No training pass waits for the device: layouts and checks are the host's work, done before."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from rllib_attention.encoder.host_tags import tag_batch
from tests.encoder.support import build as build_encoder
from tests.encoder.test_compile import chunk_batches
from tests.encoder.test_host_tags import make_batch
from tests.encoder.test_packed_runs import make_encoder
from tests.harness import DISCRETE, build, prepare, sample
from tests.waits import Waits

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
OFF_POLICY = {"dqn": (DQNConfig, DISCRETE), "sac": (SACConfig, BOX), "tqc": (TQCConfig, BOX)}
PREVIOUS = {"prev_actions": 2, "prev_rewards": 1}


def learner_and_episodes(name, stop, **options):
    """Returns a learner, and episodes for two of its updates."""
    if name == "ppo":
        algo = stop(build(prepare(PPOConfig()), **options))
        return algo.learner_group._learner, [sample(algo, num_timesteps=150) for _ in range(2)]
    config_class, actions = OFF_POLICY[name]
    config = prepare(config_class(), action_space=actions, lengths=(3, 30))
    config.training(
        train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=10_000
    )
    config.reporting(min_sample_timesteps_per_iteration=300, min_time_s_per_iteration=0)
    algo = stop(build(config, **{"max_seq_len": 4} | options))
    algo.train()
    n_step = {"n_step": config.n_step} if name != "tqc" else {}
    buffer = algo.local_replay_buffer
    batches = [buffer.sample(num_items=32, sample_episodes=True, **n_step) for _ in range(2)]
    return algo.learner_group._learner, batches


def update(learner, episodes):
    kwargs = {"minibatch_size": 64, "num_epochs": 2} if "PPO" in type(learner).__name__ else {}
    learner.update(episodes=episodes, timesteps={"num_env_steps_sampled_lifetime": 0}, **kwargs)


@pytest.mark.parametrize("name", ["ppo", *OFF_POLICY])
@pytest.mark.parametrize("options", [{}, PREVIOUS], ids=["plain", "previous"])
def test_training_passes_do_not_wait(name, options, stop):
    """Forward, loss, backward, gradients' checks and step, of real batches."""
    learner, batches = learner_and_episodes(name, stop, **options)
    passes = []
    run = learner._update

    def counted(batch, **kwargs):
        with Waits() as waits:
            result = run(batch, **kwargs)
        passes.append(waits)
        return result

    learner._update = counted
    for episodes in batches:
        update(learner, episodes)
    assert len(passes) >= 2
    assert [waits.of("rllib_attention") for waits in passes] == [[]] * len(passes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("path", ["chunks", "runs"])
def test_a_gpu_is_not_waited_for(path):
    """By torch's own count: of the encoders alone, as RLlib's losses wait for masked means."""
    if path == "chunks":
        encoder, batch = build_encoder().cuda(), next(chunk_batches())
    else:
        encoder, batch = make_encoder().cuda(), make_batch()[0]
    batch = convert_to_torch_tensor(batch, device="cuda")
    tag_batch(batch)
    encoder(batch)  # what is worked out once for all, such as the handles of libraries
    batch = {**batch, Columns.OBS: batch[Columns.OBS].clone()}
    tag_batch(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        encoder(batch)[ENCODER_OUT].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
