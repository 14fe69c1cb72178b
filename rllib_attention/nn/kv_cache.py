"""Keys and values of step-by-step rollouts.

Shapes: N slots (one for each sub-environment or agent), H heads, W window, s stride, E head size,
B batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.checks import check_int
from rllib_attention.nn.rings import Rings, StepIndex


class KVCache:
    """Keys and values that the next steps of every slot read, updated in place.

    A layer of stride s keeps the last s*W steps of a slot, 2*s*W*H*E numbers.

    Args:
        strides: The stride of each layer.
        num_slots: Slots N.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Time steps W that a query attends to.
        device: Where the buffers live.
        dtype: Their type.
        distance_bias: What the position scheme adds to scores at each distance, (H, W), or None:
            `Transformer.distance_bias`.

    Raises:
        ValueError: If there is no stride, or a stride or size is no positive integer.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        num_slots: int,
        num_heads: int,
        head_size: int,
        window: int,
        device: torch.device,
        dtype: torch.dtype,
        distance_bias: Tensor | None,
    ):
        if not strides:
            raise ValueError("`strides` must hold one number for each layer, got none.")
        check_int("head_size", head_size, 1)
        self.strides = tuple(strides)
        # Layers of one stride share their places.
        self._rings = {
            stride: Rings(
                num_slots=num_slots,
                num_heads=num_heads,
                window=window,
                stride=stride,
                device=device,
                dtype=dtype,
                distance_bias=distance_bias,
            )
            for stride in self.strides
        }
        shapes = [(2, s * num_slots, num_heads, window, head_size) for s in self.strides]
        # A buffer made under inference mode could not be written outside of it.
        with torch.inference_mode(False):
            self.layers = [torch.zeros(shape, device=device, dtype=dtype) for shape in shapes]

    def locate(
        self, slots: np.ndarray, steps: np.ndarray, starts: np.ndarray
    ) -> dict[int, StepIndex]:
        """Locates the current step of some slots.

        Args:
            slots: (B,).
            steps: Their current time steps, (B,).
            starts: The first step that was written for each, (B,).

        Returns:
            The places in all layers of each stride.
        """
        return {s: rings.locate(slots, steps, starts) for s, rings in self._rings.items()}

    def write(self, layer: int, index: StepIndex, pairs: Tensor) -> None:
        """Writes the current step.

        Args:
            layer: Index of the layer.
            index: From `locate`.
            pairs: Keys, then values, (B, 2*H, E).
        """
        rings = self.layers[layer]
        rings.view(-1, rings.shape[-1]).index_copy_(0, index.write, pairs.flatten(0, 1))

    def read(self, layer: int, index: StepIndex) -> tuple[Tensor, Tensor]:
        """Returns the slots' keys (B*H, E, W) and values (B*H, W, E); views where possible."""
        rings = self.layers[layer]
        if isinstance(index.rings, slice):
            used = rings[:, index.rings]
        else:
            used = rings.index_select(1, index.rings)
        key, value = used.flatten(1, 2).unbind(0)
        return key.transpose(1, 2), value

    def fill(
        self, layer: int, slots: np.ndarray, steps: np.ndarray, key: Tensor, value: Tensor
    ) -> None:
        """Writes past steps of some slots, of which at most the last s*W of a slot are given.

        Args:
            layer: Index of the layer.
            slots: Slot of each token, (N,).
            steps: Time step of each token, (N,).
            key: (N, H, E).
            value: (N, H, E).
        """
        where = self._rings[self.strides[layer]].entries(slots, steps)
        for rings, new in zip(self.layers[layer], (key, value), strict=True):
            rings.view(-1, rings.shape[-1]).index_copy_(0, where, new.flatten(0, 1))
