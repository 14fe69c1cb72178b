"""How the environment is found."""

import re

import gymnasium as gym
import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention.inspection.environments import make_env
from tests.harness import RandomEnv, RandomMultiAgentEnv

LENGTHS = {"lengths": (3, 4)}


def test_an_environment_is_taken_as_it_is():
    env = RandomEnv()
    assert make_env(None, env) is env


@pytest.mark.parametrize(
    "env",
    [RandomEnv, lambda config: RandomEnv(config), "tests.harness:RandomEnv", "registered_env"],
    ids=["class", "function", "attribute", "tune"],
)
def test_what_makes_an_environment(env):
    tune.register_env("registered_env", RandomEnv)
    made = make_env(None, env, LENGTHS)
    assert isinstance(made, RandomEnv)
    assert made._lengths == (3, 4)
    # That of the training, with its options unless others are given.
    config = PPOConfig().environment(env, env_config=LENGTHS)
    assert make_env(config)._lengths == (3, 4)
    assert make_env(config, env_config={"lengths": (5, 6)})._lengths == (5, 6)
    assert make_env(config, env)._lengths == (2, 60)


def test_several_agents():
    assert len(make_env(None, RandomMultiAgentEnv, {"num_agents": 2}).possible_agents) == 2


def test_an_id_of_gymnasium():
    env = make_env(None, "FrozenLake-v1", {"is_slippery": False})
    assert isinstance(env, gym.Env)
    assert env.render_mode in ("rgb_array", None)
    assert make_env(None, "gymnasium.envs:FrozenLake-v1").spec.id == "FrozenLake-v1"
    env = make_env(None, "FrozenLake-v1", {"render_mode": "ansi"})
    assert env.render_mode == "ansi"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (None, "An environment is needed, since the policy comes without one. Fix: `env=`"),
        ("no.module:Env", "of a module that can be imported, got 'no.module:Env': No module"),
        ("tests.harness:Nothing", "or 'module:attribute', got 'tests.harness:Nothing': "),
        ("Nothing-v0", "`env` expects an ID that Gymnasium or Tune knows, or 'module:attribute'"),
    ],
)
def test_no_such_environment(env, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_env(None, env)
