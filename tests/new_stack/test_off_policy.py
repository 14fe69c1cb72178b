"""Off-policy runs beyond parity: replay memory, multi-agent, Tune's schedulers."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

from rllib_attention import use_attention
from rllib_attention.encoder.packed_window import unpack_tokens
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from rllib_attention.new_stack.connectors.windows import run_windows
from tests.harness import DISCRETE, RandomMultiAgentEnv, build, prepare


def sac():
    config = prepare(SACConfig(), action_space=gym.spaces.Box(-1.0, 1.0, (2,)), lengths=(100, 200))
    config.reporting(min_sample_timesteps_per_iteration=600, min_time_s_per_iteration=0)
    return config.training(
        train_batch_size_per_learner=8,
        num_steps_sampled_before_learning_starts=10_000,
        replay_buffer_config={
            "type": "PrioritizedEpisodeReplayBuffer",
            "capacity": 5_000,
            "alpha": 0.6,
            "beta": 0.4,
        },
    )


def bytes_per_step(algo):
    buffer = algo.local_replay_buffer
    return len(pickle.dumps(buffer.get_state())) / buffer.get_num_timesteps()


def test_replay_memory_is_that_of_an_mlp(stop):
    """At window 64 and two layers a step's context is 126 steps; the buffer stores one."""
    plain, attention = stop(sac().build_algo()), stop(build(sac(), window=64, max_seq_len=8))
    for algo in (plain, attention):
        algo.train()
    assert attention.local_replay_buffer.get_num_timesteps() >= 600
    assert bytes_per_step(attention) < 1.3 * bytes_per_step(plain)


UNIFORM, PRIORITIZED = "MultiAgentEpisodeReplayBuffer", "MultiAgentPrioritizedEpisodeReplayBuffer"


@pytest.mark.parametrize(
    ("config_class", "buffer", "mode"),
    [
        (DQNConfig, PRIORITIZED, "all"),
        (DQNConfig, PRIORITIZED, "turns"),
        (DQNConfig, UNIFORM, "turns"),
        (SACConfig, UNIFORM, "turns"),
        (TQCConfig, PRIORITIZED, "turns"),
    ],
)
def test_multi_agent_windows_are_the_agents_own_past(stop, config_class, buffer, mode):
    actions = DISCRETE if config_class is DQNConfig else gym.spaces.Box(-1.0, 1.0, (2,))
    config = prepare(config_class(), RandomMultiAgentEnv, mode=mode, action_space=actions)
    config.env_runners(num_envs_per_env_runner=1)
    config.multi_agent(policies={"p0"}, policy_mapping_fn=lambda aid, *a, **k: "p0")
    config.reporting(min_sample_timesteps_per_iteration=150, min_time_s_per_iteration=0)
    config.training(
        train_batch_size_per_learner=8,
        num_steps_sampled_before_learning_starts=50,
        replay_buffer_config={"type": buffer, "capacity": 1000, "alpha": 0.6, "beta": 0.4},
    )
    algo = stop(build(config, max_seq_len=4))
    results = algo.train()
    assert np.isfinite(results["learners"]["p0"]["total_loss"])
    stored = {}
    for episode in algo.local_replay_buffer.episodes:
        for agent in episode.agent_episodes.values():
            obs = np.stack(agent.get_observations())
            for t in range(len(obs)):
                stored[obs[t].tobytes()] = obs[: t + 1]
    [sampled] = algo.local_replay_buffer.sample(
        num_items=64, n_step=1, gamma=0.9, beta=0.4, sample_episodes=True
    )
    assert max(sampled.runs.length) == 4
    module = inspect_module(algo.get_module("p0"))
    beyond = 0
    for windows in run_windows(sampled.runs, module):
        obs, _, tags = (x.numpy() for x in unpack_tokens(torch.from_numpy(windows), (3,), 0))
        for row in range(len(obs)):
            truth = stored[obs[row, -1].tobytes()][-9:]
            np.testing.assert_array_equal(obs[row][tags[row] > 0], truth)
            beyond += len(truth) == 9
    assert beyond > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asha", "pbt"])
def test_schedulers(name, tmp_path):
    """PBT copies a trial's checkpoint into another and goes on."""
    config = prepare(PPOConfig())
    config.training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
    config.training(lr=tune.choice([1e-3, 1e-4]) if name == "asha" else 1e-3)
    use_attention(config, dim=16, num_heads=2, ffn_dim=0, window=tune.choice([4]), max_seq_len=16)
    metric = {"metric": "num_env_steps_sampled_lifetime", "mode": "max"}
    if name == "asha":
        scheduler = ASHAScheduler(**metric, max_t=3, grace_period=1)
    else:
        scheduler = PopulationBasedTraining(
            **metric, perturbation_interval=1, hyperparam_mutations={"lr": [1e-2, 1e-3, 1e-4]}
        )
    results = tune.Tuner(
        config.algo_class,
        param_space=config,
        tune_config=tune.TuneConfig(num_samples=2, scheduler=scheduler),
        run_config=tune.RunConfig(
            stop={"training_iteration": 4}, storage_path=str(tmp_path), verbose=0
        ),
    ).fit()
    assert not results.errors
    assert all(result.config["_model_config"]["attention"]["window"] == 4 for result in results)
