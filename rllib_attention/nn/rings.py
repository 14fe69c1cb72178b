"""Which entry of a ring buffer holds which step of which slot.

Shapes: N slots (one for each sub-environment or agent), H heads, W window, s stride, B batch.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.checks import check_int
from rllib_attention.nn.sending import send


@dataclass(frozen=True)
class StepIndex:
    """Where the current step of some slots is written and what it may read.

    Attributes:
        write: Entries of the flattened rings, for keys and values in the order (B, 2, H).
        rings: Rings to read, (B,), or a slice of B where they lie in order.
        bias: What to add to scores: -inf for entries that are not of the episode, for others what
            the distance adds, (B*H, 1, W) or, if it is 0 everywhere, (B*H, 1, 1).
        missing: Which share of its W steps lies before the episode, for each row, (B, 1); None if
            nothing does.
        distance: Returns the strides from each entry to the current step, (B, 1, 1, W).
    """

    write: Tensor
    rings: Tensor | slice
    bias: Tensor
    missing: Tensor | None
    distance: Callable[[], Tensor]


class Rings:
    """Places the steps of slots in rings of W entries: one for each slot and residue mod stride.

    Slots may be at different time steps. With a stride of s, step t of a slot lives in its ring
    t mod s, at entry t // s mod W, so an entry's step follows from the slot's current step and
    nothing is ever shifted or cleared. For W=3 and s=2, before step 9 is written:

        ring 0   6 8 4
        ring 1   7 3 5     step 9 takes the place of step 3, and reads 5, 7 and itself

    Works on the host: these are few and tiny numbers, needed before any kernel starts.

    Args:
        num_slots: Slots N.
        num_heads: Heads H.
        window: Entries W in a ring.
        stride: Time steps s between neighbours in a ring.
        device: Where the rings are.
        dtype: Type of what is added to scores.
        distance_bias: What each distance adds to scores, (H, W); None for nothing.

    Raises:
        ValueError: If a size is no positive integer.
    """

    def __init__(
        self,
        *,
        num_slots: int,
        num_heads: int,
        window: int,
        stride: int,
        device: torch.device,
        dtype: torch.dtype,
        distance_bias: Tensor | None = None,
    ):
        sizes = {
            "num_slots": num_slots,
            "num_heads": num_heads,
            "window": window,
            "stride": stride,
        }
        for name, value in sizes.items():
            check_int(name, value, 1)
        self.num_slots, self.num_heads, self.window = num_slots, num_heads, window
        self.stride, self.device, self.dtype = stride, device, dtype
        self._turns = None if distance_bias is None else _turns(distance_bias.to(device, dtype))
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
        turn, seen = steps // self.stride, (steps - starts) // self.stride
        entry = turn % self.window
        write, rings = self._first_entry + entry[:, None], self._rings
        if self.stride > 1:
            ring = self._ring(slots, steps)
            write += (ring - slots)[:, None] * (self.num_heads * self.window)
            is_one_slice = self._in_order and (ring == ring[0] + slots).all()
            rings = slice(ring[0], ring[0] + len(ring)) if is_one_slice else self._send(ring)
        bias = self._open_bias
        if self._turns is not None:
            turns = self._turns.index_select(0, self._send(self.window - entry))
            bias = turns.view(-1, 1, self.window)
        # Mostly every window is full: then nothing is hidden.
        missing = None
        if seen.min() < self.window - 1:
            share = np.maximum(self.window - 1 - seen, 0)[:, None] / self.window
            missing = self._send(share).to(self.dtype)
            hidden = self._distance(entry) > seen[:, None]
            scores = np.where(hidden, -np.inf, 0.0).repeat(self.num_heads, axis=0)[:, None]
            bias = bias + self._send(scores).to(self.dtype)
        return StepIndex(
            write=self._send(write.ravel()),
            rings=rings,
            bias=bias,
            missing=missing,
            distance=functools.cache(lambda: self._send(self._distance(entry)[:, None, None])),
        )

    def entries(self, slots: np.ndarray, steps: np.ndarray) -> Tensor:
        """Returns the entries of past steps in the flattened rings, in the order (B, H).

        Args:
            slots: (B,); a slot may be there several times.
            steps: A time step of each, (B,).
        """
        entry = steps // self.stride % self.window
        return self._send((self._entry(self._ring(slots, steps)) + entry[:, None]).ravel())

    def _ring(self, slots: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Returns the ring of each slot at a step, (B,)."""
        return steps % self.stride * self.num_slots + slots

    def _entry(self, rings: np.ndarray) -> np.ndarray:
        """Returns the first entry of each head of some rings, (B, H)."""
        return (rings[:, None] * self.num_heads + np.arange(self.num_heads)) * self.window

    def _select(self, slots: np.ndarray) -> None:
        """Remembers what follows from the slots alone: they seldom change between steps."""
        self._slots = slots.copy()
        keys, size = self._entry(slots), self.num_rings * self.num_heads * self.window
        self._first_entry = np.concatenate((keys, keys + size), axis=1)
        self._in_order = np.array_equal(slots, np.arange(len(slots)))
        self._rings = slice(0, len(slots)) if self._in_order else self._send(slots)
        self._open_bias = torch.zeros(
            len(slots) * self.num_heads, 1, 1, dtype=self.dtype, device=self.device
        )

    @property
    def num_rings(self) -> int:
        """Rings of all slots."""
        return self.num_slots * self.stride

    def _distance(self, entry: np.ndarray) -> np.ndarray:
        return (entry[:, None] - np.arange(self.window)) % self.window

    def _send(self, array: np.ndarray) -> Tensor:
        return send(array, self.device)


def _turns(distance_bias: Tensor) -> Tensor:
    """Returns what is added to a ring's entries if the current step is W, W-1, … 0, (W + 1, H, W).

    With the current step at entry e, entry w lies (e - w) mod W strides back. So each turn is a
    window on the same two rounds, and takes no memory of its own.
    """
    window = distance_bias.shape[-1]
    rounds = distance_bias[:, -torch.arange(2 * window, device=distance_bias.device) % window]
    return rounds.unfold(1, window, 1).transpose(0, 1)
