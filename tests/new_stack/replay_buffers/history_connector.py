"""A learner connector that checks each sampled history; importable by remote learners."""

from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2


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
        lengths = [past for sampled in episodes for past in self._check(sampled)]
        with Path(self.log).open("a") as file:
            file.write(" ".join(map(str, lengths)) + "\n")
        return batch

    def _check(self, sampled) -> list[int]:
        """Returns the past steps of each transition, up to the longest."""
        runs, lengths = sampled.runs, []
        for start, past, length, n in zip(
            runs.start, runs.num_past, runs.length, runs.n_step, strict=True
        ):
            size = past + length + n
            obs, rewards = runs.obs[start : start + size], runs.rewards[start : start + size - 1]
            number, t = obs[past]
            # Every step is stored, so only the start of the episode shortens a history.
            assert past == min(int(t), self.history_len)
            steps = np.arange(t - past, t + length + n)
            np.testing.assert_array_equal(obs[:, 0], number)
            np.testing.assert_array_equal(obs[:, 1], steps)
            np.testing.assert_array_equal(rewards, steps[:-1] + 0.5)
            lengths += [min(past + i, self.history_len) for i in range(length)]
        assert len(lengths) == len(sampled) == len(sampled.get_actions())
        return lengths


def read_lengths(log: Path) -> list[list[int]]:
    return [[int(length) for length in line.split()] for line in log.read_text().splitlines()]
