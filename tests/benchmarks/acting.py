"""What one decision of an `AttentionPolicy` costs, by the number of sessions in a batch."""

import time

import gymnasium as gym
import numpy as np

from rllib_attention import AttentionConfig, AttentionPolicy
from tests.benchmarks.options import Options, Size
from tests.benchmarks.timing import interleave

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (8,), np.float32)


def decision_seconds(size: Size, options: Options) -> dict[str, list[float]]:
    """Measures calls of `act` once the windows are full.

    Args:
        size: Width and window.
        options: The command line; `decisions` of each number of `sessions` in a round, at least.

    Returns:
        CPU seconds of a call in each round, by the number of sessions in it.
    """
    attention = AttentionConfig(
        dim=size.dim,
        num_heads=options.num_heads,
        num_layers=options.num_layers,
        window=size.window,
    )
    players = {str(number): _Player(attention, number, options) for number in options.sessions}
    figures = interleave({name: player.turn for name, player in players.items()}, options.rounds)
    return {name: found["call"] for name, found in figures.items()}


class _Player:
    """A policy that acts in some sessions, which have filled their windows."""

    def __init__(self, attention: AttentionConfig, num_sessions: int, options: Options):
        self._policy = AttentionPolicy.from_spaces(attention, OBSERVATIONS, gym.spaces.Discrete(4))
        self._obs = dict.fromkeys(range(num_sessions), OBSERVATIONS.sample())
        self._calls = max(2, options.decisions // num_sessions)
        for _ in range(attention.context_len + 1):
            self._policy.act(self._obs)

    def turn(self) -> dict[str, float]:
        """Returns the CPU seconds of a call."""
        start = time.process_time()
        for _ in range(self._calls):
            self._policy.act(self._obs)
        return {"call": (time.process_time() - start) / self._calls}
