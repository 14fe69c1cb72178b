"""Names and example tensors for the parts of a space."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space
from torch import Tensor


class NamedSpace:
    """A space whose parts go by names: `obs`, or `obs.x` and `obs.y` for a Dict of x and y.

    Args:
        name: The name of the whole.
        space: Any space of Box, Discrete, MultiDiscrete and MultiBinary parts.

    Attributes:
        names: The names of the parts, in the order of `tree.flatten`.
        parts: Their spaces.

    Raises:
        ValueError: If a part is of another kind.
    """

    def __init__(self, name: str, space: gym.Space):
        self.struct = get_base_struct_from_space(space)
        found = tree.flatten_with_path(self.struct)
        self.names = [".".join([name, *map(str, path)]) for path, _ in found]
        self.parts = [part for _, part in found]
        for part_name, part in zip(self.names, self.parts, strict=True):
            if not isinstance(part, _KINDS):
                raise ValueError(
                    f"A policy can be exported with spaces of Box, Discrete, MultiDiscrete and "
                    f"MultiBinary parts, but {part_name!r} is {part}. Fix: act with "
                    "`AttentionPolicy` itself."
                )

    def example(self, batch_size: int) -> dict[str, Tensor]:
        """Returns tensors of zeros by name, (B, ...), as RLlib's modules are given them."""
        return {
            name: torch.zeros((batch_size, *(part.shape or ())), dtype=_dtype(part))
            for name, part in zip(self.names, self.parts, strict=True)
        }

    def nested(self, tensors: dict[str, Tensor]) -> Any:
        """Returns the parts, which are found by name, nested as the space is."""
        return tree.unflatten_as(self.struct, [tensors[name] for name in self.names])

    def nested_names(self) -> Any:
        """Returns the names nested as the parts are: dicts, lists, or the one name."""
        return _as_lists(tree.unflatten_as(self.struct, self.names))

    def named(self, nested: Any) -> dict[str, Tensor]:
        """Undoes `nested`."""
        flat = tree.flatten_up_to(self.struct, nested)
        return dict(zip(self.names, flat, strict=True))


_KINDS = (
    gym.spaces.Box,
    gym.spaces.Discrete,
    gym.spaces.MultiDiscrete,
    gym.spaces.MultiBinary,
)


def _as_lists(nested: Any) -> Any:
    if isinstance(nested, dict):
        return {str(key): _as_lists(part) for key, part in nested.items()}
    return [_as_lists(part) for part in nested] if isinstance(nested, tuple) else nested


def _dtype(space: gym.Space) -> torch.dtype:
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return torch.int64
    # As RLlib's `NumpyToTensor` does it.
    dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype
    return torch.float32 if dtype == torch.float64 else dtype
