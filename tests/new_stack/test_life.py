"""Remote runners and learners, checkpoints, failures, Ray Tune."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule

from rllib_attention import AttentionConfig, use_attention
from tests.harness import (
    PARITY,
    RandomEnv,
    build,
    learner_batches,
    mismatch,
    prepare,
    sample,
    worst_mismatch,
)
from tests.pair import window_mismatch

SMALL = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=5, ffn_dim=16, max_seq_len=16)


class FailingEnv(RandomEnv):
    """Raises at every 250th step of all environments together, in mid-episode."""

    steps = failures = 0

    def step(self, action):
        FailingEnv.steps += 1
        if FailingEnv.steps % 250 == 0:
            FailingEnv.failures += 1
            raise RuntimeError("the simulator crashed")
        return super().step(action)


def ppo(env=RandomEnv, **env_config):
    config = prepare(PPOConfig(), env, **env_config).env_runners(rollout_fragment_length=37)
    return config.training(
        train_batch_size_per_learner=111, minibatch_size=64, num_epochs=1, lr=0.01
    )


def logits(module, obs):
    """Plays a fixed sequence by hand, through `state_in` and `state_out`."""
    state = {k: v.unsqueeze(0) for k, v in module.get_initial_state().items()}
    out = []
    for step in obs:
        result = module.forward_inference(
            {Columns.OBS: step.view(1, 1, -1), Columns.STATE_IN: state}
        )
        state = result[Columns.STATE_OUT]
        out.append(result[Columns.ACTION_DIST_INPUTS][0, 0])
    return torch.stack(out)


def test_acting_by_hand_equals_the_learner(stop):
    config = ppo()
    config.rl_module(model_config=dict(config.model_config, vf_share_layers=True))
    algo = stop(build(config))
    algo.train()
    episodes = sample(algo, num_episodes=2)
    episode = max(episodes, key=len)
    obs = torch.from_numpy(np.stack(episode.get_observations(slice(0, len(episode)))))
    by_hand = logits(algo.get_module(), obs)
    assert len(episode) > SMALL.receptive_field
    [(_, module, batch)] = learner_batches(algo, [episode])
    with torch.no_grad():
        out = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    expected = out[batch[Columns.LOSS_MASK].bool()]
    torch.testing.assert_close(by_hand, expected, atol=PARITY, rtol=0)


@pytest.mark.slow
def test_evaluation_runners(stop):
    config = ppo().evaluation(
        evaluation_interval=1, evaluation_num_env_runners=1, evaluation_duration=2
    )
    result = stop(build(config)).train()
    assert result["evaluation"]["env_runners"]["num_episodes"] >= 2


@pytest.mark.slow
def test_restore_in_a_new_process_acts_the_same(stop, tmp_path):
    config = ppo()
    config.rl_module(model_config=dict(config.model_config, vf_share_layers=True))
    algo = stop(build(config))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    obs = torch.randn(30, 3)
    expected = logits(algo.get_module(), obs)

    restored = stop(Algorithm.from_checkpoint(path))
    torch.testing.assert_close(logits(restored.get_module(), obs), expected, atol=0, rtol=0)
    assert worst_mismatch(restored, iterations=1) < PARITY

    module_path = Path(path) / "learner_group" / "learner" / "rl_module" / "default_policy"
    (tmp_path / "obs.pkl").write_bytes(pickle.dumps(obs.numpy()))
    script = f"""
import pickle, torch
from ray.rllib.core.rl_module.rl_module import RLModule
from tests.new_stack.test_life import logits
torch.set_num_threads(1)
module = RLModule.from_checkpoint({str(module_path)!r})
obs = torch.from_numpy(pickle.load(open({str(tmp_path / "obs.pkl")!r}, "rb")))
pickle.dump(logits(module, obs).numpy(), open({str(tmp_path / "out.pkl")!r}, "wb"))
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    out = pickle.loads((tmp_path / "out.pkl").read_bytes())
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-6)
    assert isinstance(RLModule.from_checkpoint(str(module_path)), RLModule)


def test_environments_that_raise(stop):
    config = ppo(FailingEnv, lengths=(20, 60)).fault_tolerance(restart_failed_sub_environments=True)
    assert worst_mismatch(stop(build(config)), iterations=3) < PARITY
    assert FailingEnv.failures


@pytest.mark.slow
def test_killed_runner(stop):
    config = ppo().env_runners(num_env_runners=2, rollout_fragment_length=19)
    config.fault_tolerance(restart_failed_env_runners=True)
    algo = stop(build(config))
    algo.train()
    pids = algo.env_runner_group.foreach_env_runner(lambda r: os.getpid(), local_env_runner=False)
    os.kill(pids[0], signal.SIGKILL)
    for _ in range(3):
        algo.train()
    assert mismatch(algo, sample(algo)) < PARITY


@pytest.mark.slow
@pytest.mark.parametrize("config_class", [PPOConfig, IMPALAConfig, SACConfig])
def test_sweep(config_class, tmp_path):
    """Each trial has its own receptive field, and parity."""
    action_space = (
        gym.spaces.Box(-1, 1, (1,)) if config_class is SACConfig else RandomEnv().action_space
    )
    config = prepare(config_class(), action_space=action_space)
    config.env_runners(num_envs_per_env_runner=1).learners(num_learners=0)
    if config_class is SACConfig:
        config.training(num_steps_sampled_before_learning_starts=10)
        config.reporting(min_sample_timesteps_per_iteration=20)
    elif config_class is PPOConfig:
        config.training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
    use_attention(config, SMALL, num_layers=tune.grid_search([1, 2]), window=tune.choice([3, 8]))
    config.callbacks_on_train_result = record_context
    results = tune.Tuner(
        config.algo_class,
        param_space=config,
        run_config=tune.RunConfig(
            stop={"training_iteration": 2}, storage_path=str(tmp_path), verbose=0
        ),
    ).fit()
    assert not results.errors
    for result in results:
        options = result.config["_model_config"]["attention"]
        wanted = options["num_layers"] * (options["window"] - 1)
        assert result.metrics["context_len"] == wanted
        assert result.metrics["worst_mismatch"] < PARITY


def record_context(algorithm, result, **kwargs):
    """Reports a trial's receptive field, and parity with the learner's weights in the runner."""
    from rllib_attention.new_stack.connectors.attention_module import inspect_module

    result["context_len"] = inspect_module(algorithm.get_module()).attention.context_len
    if isinstance(algorithm.config, IMPALAConfig):
        time.sleep(2)  # the learner's thread works off its queue
    module = algorithm.learner_group._learner.module["default_policy"]
    algorithm.env_runner.module.set_state(module.get_state(inference_only=True))
    if isinstance(algorithm.config, SACConfig):
        worst = window_mismatch(algorithm.env_runner, module, num_timesteps=30)
    else:
        worst = mismatch(algorithm, sample(algorithm, num_timesteps=30))
    result["worst_mismatch"] = worst
