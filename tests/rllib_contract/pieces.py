"""What the tests of RLlib's behaviour are made of."""

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

OBS, ACTIONS = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)


class Marker(ConnectorV2):
    """A user's piece that does nothing."""

    def __call__(self, *, batch, **kwargs):
        return batch


class ZeroEnv(gym.Env):
    """Zeros for ever."""

    def __init__(self, config=None):
        self.observation_space, self.action_space = OBS, ACTIONS

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, False, {}


def ppo_config(**model_config) -> PPOConfig:
    config = PPOConfig().environment(ZeroEnv)
    config.env_runners(num_env_runners=0, rollout_fragment_length=4)
    return config.rl_module(model_config={"fcnet_hiddens": [4], "max_seq_len": 4, **model_config})


def module(inference_only=False, **model_config):
    config = ppo_config(**model_config)
    spaces = {DEFAULT_MODULE_ID: (OBS, ACTIONS)}
    return config.get_rl_module_spec(spaces=spaces, inference_only=inference_only).build()


def lstm(**model_config):
    return module(use_lstm=True, lstm_cell_size=4, **model_config)


def episode(num_steps=6, *, lookback=0, first=0, id_=None, done=True) -> SingleAgentEpisode:
    """Return an episode in which the observation is the time step."""
    steps = list(range(first, first + num_steps + lookback))
    return SingleAgentEpisode(
        id_=id_,
        observations=[np.full(3, t, np.float32) for t in [*steps, first + num_steps + lookback]],
        observation_space=OBS,
        actions=[0 for _ in steps],
        action_space=ACTIONS,
        rewards=[float(t) for t in steps],
        terminated=done,
        len_lookback_buffer=lookback,
        t_started=first + lookback,
    )
