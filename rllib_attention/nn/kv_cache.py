"""Keys and values of step-by-step rollouts.

Shapes: N slots (one for each sub-environment or agent), H heads, W window, E head size, B batch.
"""

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.checks import check_int
from rllib_attention.nn.rings import Rings, StepIndex


class KVCache:
    """Keys and values of the last W steps of every slot and layer, updated in place.

    Args:
        num_layers: Layers, each with its own rings.
        num_slots: Slots N.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Entries W in a ring.
        device: Where the buffers live.
        dtype: Their type.

    Raises:
        ValueError: If a size is no positive integer.
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
        check_int("num_layers", num_layers, 1)
        check_int("head_size", head_size, 1)
        self.rings = Rings(
            num_slots=num_slots, num_heads=num_heads, window=window, device=device, dtype=dtype
        )
        shape = (2, num_slots * num_heads, window, head_size)
        # A buffer made under inference mode could not be written outside of it.
        with torch.inference_mode(False):
            self.layers = [
                torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_layers)
            ]

    def locate(self, slots: np.ndarray, steps: np.ndarray, starts: np.ndarray) -> StepIndex:
        """Locates the current step of some slots, once for all layers.

        Args:
            slots: (B,).
            steps: Their current time steps, (B,).
            starts: The first step that was written for each, (B,).
        """
        return self.rings.locate(slots, steps, starts)

    def write(self, layer: int, index: StepIndex, pairs: Tensor) -> None:
        """Writes the current step.

        Args:
            layer: Index of the layer.
            index: From `locate`.
            pairs: Keys, then values, (B, 2*H, E).
        """
        ring = self.layers[layer]
        ring.view(-1, ring.shape[-1]).index_copy_(0, index.write, pairs.flatten(0, 1))

    def read(self, layer: int, index: StepIndex) -> tuple[Tensor, Tensor]:
        """Returns the slots' keys (B*H, E, W) and values (B*H, W, E); views where possible."""
        rings = self.layers[layer]
        used = rings[:, : len(index.bias)] if index.rings is None else rings[:, index.rings]
        key, value = used.unbind(0)
        return key.transpose(1, 2), value

    def fill(
        self, layer: int, slots: np.ndarray, steps: np.ndarray, key: Tensor, value: Tensor
    ) -> None:
        """Writes past steps of some slots, of which at most the last W of a slot are given.

        Args:
            layer: Index of the layer.
            slots: Slot of each token, (N,).
            steps: Time step of each token, (N,).
            key: (N, H, E).
            value: (N, H, E).
        """
        where = self.rings.entries(slots, steps)
        for ring, new in zip(self.layers[layer], (key, value), strict=True):
            ring.view(-1, ring.shape[-1]).index_copy_(0, where, new.flatten(0, 1))
