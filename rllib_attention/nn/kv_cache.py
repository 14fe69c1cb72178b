"""Ring buffers of keys and values for step-by-step rollouts.

Shapes: N slots (one for each sub-environment or agent), H heads, W window, E head size, B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class StepIndex:
    """Where the current step of some slots is written and what it may read, for all layers.

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


class KVCache:
    """Keys and values of the last W steps of every slot and layer, updated in place.

    Slots may be at different time steps. Step s of a slot lives in ring entry s mod W, so an
    entry's step follows from the slot's current step and nothing is ever shifted or cleared.

    Args:
        num_layers: Layers, each with its own rings.
        num_slots: Slots N.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Entries W in a ring.
        device: Where the buffers live.
        dtype: Their type.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_slots: int,
        num_heads: int,
        head_size: int,
        window: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.num_slots, self.num_heads, self.window = num_slots, num_heads, window
        self.device, self.dtype = device, dtype
        shape = (2, num_slots * num_heads, window, head_size)
        # A buffer made under inference mode could not be written outside of it.
        with torch.inference_mode(False):
            self.layers = [
                torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_layers)
            ]
        self._locate(np.arange(num_slots))

    def index(self, slots: np.ndarray, steps: np.ndarray, starts: np.ndarray) -> StepIndex:
        """Locates the current step of some slots, once for all layers.

        Works on the host: these are few and tiny numbers, needed before any kernel starts.

        Args:
            slots: (B,).
            steps: Their current time steps, (B,).
            starts: The first step that was written for each, (B,).
        """
        if not np.array_equal(slots, self._slots):
            self._locate(slots)
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

    def _locate(self, slots: np.ndarray) -> None:
        """Remembers what follows from the slots alone: they seldom change between steps."""
        self._slots = slots.copy()
        rings = slots[:, None] * self.num_heads + np.arange(self.num_heads)
        both = np.concatenate((rings, rings + self.num_slots * self.num_heads), axis=1)
        self._first_entry = both * self.window
        in_order = np.array_equal(slots, np.arange(len(slots)))
        self._rings = None if in_order else self._send(rings.ravel())
        self._views = [_keys_and_values(ring[:, : rings.size]) for ring in self.layers]
        self._open_bias = torch.zeros(rings.size, 1, 1, dtype=self.dtype, device=self.device)

    def _distance(self, entry: np.ndarray) -> np.ndarray:
        return (entry[:, None] - np.arange(self.window)) % self.window

    def write(self, layer: int, index: StepIndex, pairs: Tensor) -> None:
        """Writes the current step.

        Args:
            layer: Index of the layer.
            index: From `index`.
            pairs: Keys, then values, (B, 2*H, E).
        """
        ring = self.layers[layer]
        ring.view(-1, ring.shape[-1]).index_copy_(0, index.write, pairs.flatten(0, 1))

    def read(self, layer: int, index: StepIndex) -> tuple[Tensor, Tensor]:
        """Returns the slots' keys (B*H, E, W) and values (B*H, W, E); views where possible."""
        if index.rings is None:
            return self._views[layer]
        return _keys_and_values(self.layers[layer][:, index.rings])

    def fill(
        self, layer: int, slots: np.ndarray, steps: np.ndarray, key: Tensor, value: Tensor
    ) -> None:
        """Writes several past steps of some slots.

        Args:
            layer: Index of the layer.
            slots: (B,).
            steps: Time steps, at most W different ones in a row, (B, K); negative ones are not
                written.
            key: (B, K, H, E).
            value: (B, K, H, E).
        """
        real = steps >= 0
        rings = slots[:, None] * self.num_heads + np.arange(self.num_heads)
        entry = rings[:, None] * self.window + (steps % self.window)[:, :, None]
        where, chosen = self._send(entry[real].ravel()), self._send(real)
        for ring, new in zip(self.layers[layer], (key, value), strict=True):
            ring.view(-1, ring.shape[-1])[where] = new[chosen].flatten(0, 1)

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _keys_and_values(ring: Tensor) -> tuple[Tensor, Tensor]:
    key, value = ring.unbind(0)
    return key.transpose(1, 2), value
