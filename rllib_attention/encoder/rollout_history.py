"""The raw inputs of the last steps of every episode that a runner is playing.

Shapes: N slots, R ring entries, B batch, C context, A row of a previous action and reward,
P stacked rows.
"""

import numpy as np

from rllib_attention.encoder.prev_inputs import PrevInputs


class RolloutHistory:
    """A ring buffer of observations (and previous actions and rewards) for each running episode.

    It is what a KV cache is rebuilt from when weights change, and where an episode fragment
    gets its context from when RLlib's own lookback is too short. Step s of a slot lives in ring
    entry s mod R. Observations take C + 2 times their size for each slot.

    Args:
        context_len: Steps of context C that the encoder sees.
        prev_inputs: The encoder's previous actions and rewards.

    Attributes:
        steps: The last step written to each slot, (N,).
        starts: The first step known of each slot's episode, (N,).
        tenants: Counts up whenever a slot begins anew, (N,).
    """

    def __init__(self, context_len: int, prev_inputs: PrevInputs):
        self.context_len, self.prev_inputs = context_len, prev_inputs
        # One entry for the current step; one more because an episode fragment starts one step
        # before its first visit to the connector; and rows that the oldest step reaches back to.
        self._reach = max(0, prev_inputs.depth - 1)
        self.size = context_len + 2 + self._reach
        self.num_slots = 0
        self.obs: np.ndarray | None = None
        self.rows = np.zeros((0, self.size, prev_inputs.row_size), np.float32)
        self.steps = np.zeros(0, np.int64)
        self.starts = np.zeros(0, np.int64)
        self.tenants = np.zeros(0, np.int64)

    def fits(self, context_len: int, prev_inputs: PrevInputs) -> bool:
        """Returns whether an encoder with these options could read this history."""
        mine = self.prev_inputs
        same_rows = (mine.row_size, mine.depth) == (prev_inputs.row_size, prev_inputs.depth)
        return self.context_len == context_len and same_rows

    def begin(self, slot: int, first_step: int) -> None:
        """Makes a slot hold nothing before `first_step`.

        Args:
            slot: Any slot; the history grows to hold it.
            first_step: The first step that will be written.
        """
        if slot >= self.num_slots:
            self._grow(slot + 1)
        self.steps[slot] = first_step - 1
        self.starts[slot] = first_step
        self.tenants[slot] += 1
        self.rows[slot] = self.prev_inputs.none

    def stands_before(self, slot: int | None, step: int) -> bool:
        """Returns whether a slot's newest step is the one before `step`."""
        return slot is not None and self.steps[slot] == step - 1

    def write(self, slot: int, step: int, obs: np.ndarray, row: np.ndarray | None) -> None:
        """Writes one step's observation, and its row of a previous action and reward (A,)."""
        if self.obs is None:
            dtype = np.float32 if obs.dtype == np.float64 else obs.dtype
            self.obs = np.zeros((self.num_slots, self.size, *obs.shape), dtype)
        entry = step % self.size
        self.obs[slot, entry] = obs
        if row is not None:
            self.rows[slot, entry] = row
        self.steps[slot] = step

    def fill(self, slot: int, first_step: int, obs: np.ndarray, rows: np.ndarray) -> None:
        """Makes a slot hold consecutive steps.

        Args:
            slot: Any slot.
            first_step: The first of the steps.
            obs: Their observations, (K, *obs).
            rows: Their rows, and those before that the first one reaches back to,
                (depth - 1 + K, A).
        """
        self.begin(slot, first_step)
        steps = np.arange(first_step - self._reach, first_step + len(obs))
        self.rows[slot, steps % self.size] = rows
        for step, observation in enumerate(obs, first_step):
            self.write(slot, step, observation, None)

    def prev(self, slots: np.ndarray, steps: np.ndarray) -> np.ndarray | None:
        """Returns what some steps carry of previous actions and rewards, (B, P), or None."""
        if not self.prev_inputs.size:
            return None
        return self.prev_inputs.stack(self.rows_before(slots, steps + 1, 1))[:, 0]

    def context(
        self, slots: np.ndarray, stops: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inputs of the `length` steps before `stops`.

        Args:
            slots: (B,).
            stops: The step after the last one wanted, (B,).
            length: At most C.

        Returns:
            Observations (B, length, *obs), and rows (B, depth - 1 + length, A), of which the first
            ones are those that the oldest step reaches back to. Steps before an episode's first
            known one hold arbitrary observations.
        """
        assert self.obs is not None
        entry = self._entries(stops, length)
        return self.obs[slots[:, None], entry], self.rows_before(slots, stops, length)

    def rows_before(self, slots: np.ndarray, stops: np.ndarray, length: int) -> np.ndarray:
        """Returns the rows of the `length` steps before `stops`, as `context` does."""
        return self.rows[slots[:, None], self._entries(stops, length + self._reach)]

    def _entries(self, stops: np.ndarray, length: int) -> np.ndarray:
        return (stops[:, None] + np.arange(-length, 0)) % self.size

    def _grow(self, num_slots: int) -> None:
        new, self.num_slots = num_slots - self.num_slots, num_slots
        self.rows, self.steps, self.starts, self.tenants = (
            _extended(x, new) for x in (self.rows, self.steps, self.starts, self.tenants)
        )
        if self.obs is not None:
            self.obs = _extended(self.obs, new)


def _extended(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate((array, np.zeros((rows, *array.shape[1:]), array.dtype)))
