"""A memory task with continuous actions, and an expert that records it."""

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

DELAY = 3
LENGTH = 40


class RepeatPast(gym.Env):
    """Say what was seen `DELAY` steps ago: 1 or −1.

    Actions that ignore the past lose at least 1 per step in the mean (by always saying 0).
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, config: Any = None):
        self._seen: list[np.ndarray] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seen = []
        return self._see(), {}

    def step(self, action):
        wanted = answer(self._seen)
        reward = -float(np.abs(np.asarray(action) - wanted).sum())
        obs = self._see()
        return obs, reward, len(self._seen) > LENGTH, False, {}

    def _see(self) -> np.ndarray:
        self._seen.append(np.float32([self.np_random.choice([-1.0, 1.0])]))
        return self._seen[-1]


def answer(seen: list[np.ndarray]) -> np.ndarray:
    """What is to be said after these observations, oldest first."""
    return seen[-1 - DELAY] if len(seen) > DELAY else np.zeros(1, np.float32)


class ExpertActions(ConnectorV2):
    """Replaces the module's actions by right ones, with some noise. For recording."""

    def __init__(self, noise: float):
        super().__init__()
        self._noise = noise
        self._rng = np.random.default_rng(0)

    def __call__(self, *, rl_module, batch, episodes, explore=None, shared_data=None, **kwargs):
        """Sets the actions that are about to go to the environments."""
        for key, episode in zip(batch[Columns.ACTIONS], episodes, strict=True):
            noise = self._rng.normal(scale=self._noise, size=1)
            action = (answer(episode.get_observations()) + noise).astype(np.float32)
            batch[Columns.ACTIONS][key] = [action]
        return batch
