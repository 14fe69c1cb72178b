"""Which entry of a ring buffer holds which step of which slot.

Shapes: N slots (one for each sub-environment or agent), H heads, W window, B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.checks import check_int


@dataclass(frozen=True)
class StepIndex:
    """Where the current step of some slots is written and what it may read.

    Attributes:
        write: Entries of the flattened rings, for keys and values in the order (B, 2, H).
        rings: Rings to read, (B*H,); None if they are the first ones in order.
        bias: What to add to scores: 0 for entries of the last W steps of the episode, -inf for
            others, (B*H, 1, W) or, if it is 0 everywhere, (B*H, 1, 1).
        distance: Returns the time steps from each entry to the current step, (B, 1, 1, W).
    """

    write: Tensor
    rings: Tensor | None
    bias: Tensor
    distance: Callable[[], Tensor]


class Rings:
    """Places the steps of slots in rings: one of W entries for each slot and head.

    Slots may be at different time steps. Step s of a slot lives in ring entry s mod W, so an
    entry's step follows from the slot's current step and nothing is ever shifted or cleared. Works
    on the host: these are few and tiny numbers, needed before any kernel starts.

    Args:
        num_slots: Slots N.
        num_heads: Heads H.
        window: Entries W in a ring.
        device: Where the rings are.
        dtype: Type of what is added to scores.

    Raises:
        ValueError: If a size is no positive integer.
    """

    def __init__(
        self,
        *,
        num_slots: int,
        num_heads: int,
        window: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        sizes = {"num_slots": num_slots, "num_heads": num_heads, "window": window}
        for name, value in sizes.items():
            check_int(name, value, 1)
        self.num_slots, self.num_heads, self.window = num_slots, num_heads, window
        self.device, self.dtype = device, dtype
        self._select(np.arange(num_slots))

    def locate(self, slots: np.ndarray, steps: np.ndarray, starts: np.ndarray) -> StepIndex:
        """Locates the current step of some slots.

        Args:
            slots: (B,).
            steps: Their current time steps, (B,).
            starts: The first step that was written for each, (B,).
        """
        if not np.array_equal(slots, self._slots):
            self._select(slots)
        entry, seen = steps % self.window, steps - starts
        # Mostly every window is full: then nothing is hidden.
        bias = self._open_bias
        if seen.min() < self.window - 1:
            hidden = self._distance(entry) > seen[:, None]
            scores = np.where(hidden, -np.inf, 0.0).repeat(self.num_heads, axis=0)[:, None]
            bias = self._send(scores).to(self.dtype)
        return StepIndex(
            write=self._send((self._first_entry + entry[:, None]).ravel()),
            rings=self._rings,
            bias=bias,
            distance=lambda: self._send(self._distance(entry)[:, None, None]),
        )

    def entries(self, slots: np.ndarray, steps: np.ndarray) -> Tensor:
        """Returns the entries of past steps in the flattened rings, in the order (B, H).

        Args:
            slots: (B,); a slot may be there several times.
            steps: A time step of each, (B,).
        """
        return self._send((self._of(slots) * self.window + (steps % self.window)[:, None]).ravel())

    def _of(self, slots: np.ndarray) -> np.ndarray:
        """Returns the rings of some slots, (B, H)."""
        return slots[:, None] * self.num_heads + np.arange(self.num_heads)

    def _select(self, slots: np.ndarray) -> None:
        """Remembers what follows from the slots alone: they seldom change between steps."""
        self._slots = slots.copy()
        rings = self._of(slots)
        both = np.concatenate((rings, rings + self.num_slots * self.num_heads), axis=1)
        self._first_entry = both * self.window
        in_order = np.array_equal(slots, np.arange(len(slots)))
        self._rings = None if in_order else self._send(rings.ravel())
        self._open_bias = torch.zeros(rings.size, 1, 1, dtype=self.dtype, device=self.device)

    def _distance(self, entry: np.ndarray) -> np.ndarray:
        return (entry[:, None] - np.arange(self.window)) % self.window

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
