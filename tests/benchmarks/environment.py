"""An environment that costs nothing, so that what is measured is RLlib and the model."""

from typing import Any

import gymnasium as gym
import numpy as np


class IdleEnv(gym.Env):
    """Fixed observations, a reward of 1 a step, episodes of a fixed length.

    Args:
        config: `length` of an episode, and whether actions are `continuous`.
    """

    def __init__(self, config: dict[str, Any]):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space: gym.Space = gym.spaces.Discrete(2)
        if config.get("continuous", False):
            self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._obs = np.full(4, 0.5, np.float32)
        self._length = config.get("length", 200)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        """Starts an episode."""
        self._time = 0
        return self._obs, {}

    def step(self, action: Any) -> tuple:
        """Counts."""
        self._time += 1
        return self._obs, 1.0, False, self._time >= self._length, {}
