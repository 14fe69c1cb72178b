"""A learner connector that checks each sampled history; importable by remote learners."""

from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2

from rllib_attention.new_stack.replay_buffers import HISTORY


class CheckHistories(ConnectorV2):
    """Raises if an episode has a wrong history and writes the lengths of the right ones to a file.

    Args:
        log: File to which it appends a line per batch.
        history_len: The longest history that is right.
    """

    def __init__(self, *args: Any, log: str, history_len: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log, self.history_len = log, history_len

    def __call__(self, *, batch: dict, episodes: list, **kwargs: Any) -> dict:
        lengths = [self._check(episode) for episode in episodes]
        with Path(self.log).open("a") as file:
            file.write(" ".join(map(str, lengths)) + "\n")
        return batch

    def _check(self, episode) -> int:
        history = episode.custom_data[HISTORY]
        number, t = np.asarray(episode.get_observations(0))
        last = np.asarray(episode.get_observations(-1))
        num_history = history["num_history"]
        # Every step is stored, so only the start of the episode shortens a history.
        assert num_history == min(int(t), self.history_len)
        steps = np.arange(t - num_history, last[1] + 1)
        np.testing.assert_array_equal(history["obs"][:, 0], number)
        np.testing.assert_array_equal(history["obs"][:, 1], steps)
        np.testing.assert_array_equal(history["rewards"], steps[:-1] + 0.5)
        assert len(history["actions"]) == len(steps) - 1
        return num_history


def read_lengths(log: Path) -> list[list[int]]:
    return [[int(length) for length in line.split()] for line in log.read_text().splitlines()]
