"""The raw inputs of the last steps of every episode that a runner is playing.

Shapes: N slots, R ring entries, B batch, C context, F features.
"""

from collections.abc import Iterable

import numpy as np


class RolloutHistory:
    """A ring buffer of observations (and previous-action features) for each running episode.

    It is what a KV cache is rebuilt from when weights change, and where an episode fragment
    gets its context from when RLlib's own lookback is too short. Step s of a slot lives in ring
    entry s mod R.

    Args:
        context_len: Steps of context C that the encoder sees.
        num_features: Previous-action and -reward features F of one step.
    """

    def __init__(self, context_len: int, num_features: int):
        self.context_len, self.num_features = context_len, num_features
        # One entry for the current step; one more because an episode fragment starts one step
        # before its first visit to the connector.
        self.size = context_len + 2
        self.num_slots = 0
        self.obs: np.ndarray | None = None
        self.features = np.zeros((0, self.size, num_features), np.float32)
        self.steps = np.zeros(0, np.int64)  # last step written, -1 for a free slot
        self.starts = np.zeros(0, np.int64)  # first step known
        self.tenants = np.zeros(0, np.int64)  # counts up whenever a slot begins anew
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._done: list[str] = []

    def slot(self, key: str) -> int | None:
        """Returns the slot of a running episode, or None."""
        return self._slots.get(key)

    def open(self, key: str, first_step: int, slot: int | None = None) -> int:
        """Gives an episode a slot that holds nothing before `first_step` yet.

        Args:
            key: The ID of the episode.
            first_step: The first step that will be written.
            slot: The slot that it has already, if it has one.
        """
        if slot is None:
            if not self._free:
                self._grow()
            self._free.sort(reverse=True)  # lowest first keeps slots in the order of the batch
            slot = self._slots[key] = self._free.pop()
        self.steps[slot] = first_step - 1
        self.starts[slot] = first_step
        self.tenants[slot] += 1
        return slot

    def close_later(self, key: str) -> None:
        """Frees an ended episode's slot at the next `collect`: its last row is still computed."""
        self._done.append(key)

    def collect(self, gone: Iterable[str] = ()) -> None:
        """Frees the slots of ended episodes, and of those that are gone."""
        for key in (*self._done, *gone):
            slot = self._slots.pop(key, None)
            if slot is not None:
                self.steps[slot] = -1
                self._free.append(slot)
        self._done = []

    def write(self, slot: int, step: int, obs: np.ndarray, features: np.ndarray | None) -> None:
        """Writes one step's input."""
        if self.obs is None:
            dtype = np.float32 if obs.dtype == np.float64 else obs.dtype
            self.obs = np.zeros((self.num_slots, self.size, *obs.shape), dtype)
        entry = step % self.size
        self.obs[slot, entry] = obs
        if features is not None:
            self.features[slot, entry] = features
        self.steps[slot] = step

    def features_before(self, slot: int, step: int) -> np.ndarray | None:
        """Returns the features (F,) of the step before, or None if that is not known."""
        known = self.starts[slot] < step == self.steps[slot] + 1
        return self.features[slot, (step - 1) % self.size] if known else None

    def context(
        self, slots: np.ndarray, stops: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inputs of the `length` steps before `stops`.

        Args:
            slots: (B,).
            stops: The step after the last one wanted, (B,).
            length: At most C.

        Returns:
            Observations (B, length, ...) and features (B, length, F); steps before an episode's
            first known step hold arbitrary values.
        """
        assert self.obs is not None
        entry = (stops[:, None] + np.arange(-length, 0)) % self.size
        index = slots[:, None]
        return self.obs[index, entry], self.features[index, entry]

    def _grow(self) -> None:
        """Doubles the slots."""
        old, new = self.num_slots, max(1, self.num_slots)
        self.num_slots = old + new
        self.features = _extend(self.features, new)
        self.steps = np.concatenate((self.steps, np.full(new, -1)))
        self.starts = _extend(self.starts, new)
        self.tenants = _extend(self.tenants, new)
        if self.obs is not None:
            self.obs = _extend(self.obs, new)
        self._free.extend(range(old, self.num_slots))


def _extend(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate((array, np.zeros((rows, *array.shape[1:]), array.dtype)))
