"""What the old stack's model refuses."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.policy.sample_batch import SampleBatch

from rllib_attention.old_stack import NEW_STACK
from rllib_attention.old_stack.model_checks import check_observation_space, check_state
from tests.old_stack.support import VECTOR, old_stack, ppo_config, rollout_worker

ONES = torch.tensor([1, 1])


@pytest.mark.parametrize(
    ("space", "fix"),
    [
        (gym.spaces.Box(-1, 1, (3, 3)), "Fix: reshape it in an environment wrapper."),
        (gym.spaces.Discrete(3), "Fix: leave RLlib's preprocessors on: `_disable_preprocessor_api"),
    ],
    ids=str,
)
def test_observation_spaces_without_a_tokenizer_are_errors(space, fix):
    message = f"Box of 1 or 3 dimensions, got {space}. {fix}"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_observation_space(space)
    check_observation_space(VECTOR)


@pytest.mark.parametrize(
    ("shapes", "seq_lens", "given"),
    [
        ([], None, "no state and seq_lens None"),
        ([(2, 6, 4)], None, "states of shapes [(6, 4)] and seq_lens None"),
        (
            [(2, 5, 4)],
            torch.tensor([1, 1]),
            "states of shapes [(5, 4)] and seq_lens tensor([1, 1])",
        ),
        ([(2, 6, 4)] * 2, torch.tensor([1, 1]), "states of shapes [(6, 4), (6, 4)] and seq_lens"),
    ],
    ids=str,
)
def test_wrong_states_say_what_came_and_where_states_come_from(shapes, seq_lens, given):
    message = (
        f"expects one state of shape (6, 4) for each sequence, and sequence lengths; got {given}"
    )
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check_state((6, 4), [torch.zeros(shape) for shape in shapes], seq_lens)
    assert "Rollouts start from `state=policy.get_initial_state()`" in str(error.value)
    check_state((6, 4), [torch.zeros(2, 6, 4)], ONES)


@pytest.mark.parametrize(
    ("config", "env", "user"),
    [
        (SACConfig(), "Pendulum-v1", "the model of SAC or CQL"),
        (DQNConfig(), "CartPole-v1", "DQNTorchModel"),
    ],
)
def test_algorithms_without_state_are_refused_at_build(config, env, user):
    config = old_stack(config).environment(env).training(model=ppo_config().model)
    config.env = lambda context: gym.make(env)
    message = f"The attention model cannot serve as {user}, which gets neither a state"
    with pytest.raises(ValueError, match=message):
        rollout_worker(config)


def test_marwil_says_why_it_cannot_train():
    config = old_stack(MARWILConfig()).environment("CartPole-v1")
    config.training(model=ppo_config().model)
    config.env = lambda context: gym.make("CartPole-v1")
    policy, size = rollout_worker(config).get_policy(), 12
    rows = {name: np.zeros(size) for name in ("rewards", "advantages", "terminateds", "eps_id")}
    rows |= {"obs": np.zeros((size, 4), np.float32), "actions": np.zeros(size, np.int64)}
    rows |= {name: np.zeros(size) for name in ("truncateds", "unroll_id", "agent_index")}
    with pytest.raises(ValueError, match=re.escape(f"with another one, use {NEW_STACK}.")):
        policy.learn_on_batch(SampleBatch(rows))
