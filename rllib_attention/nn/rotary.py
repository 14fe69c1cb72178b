"""Queries and keys rotated to their steps, and scores that fall with the distance.

Shapes: H heads, Q queries, K keys, W window, E head size.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from rllib_attention.nn.checks import check_int
from rllib_attention.nn.no_position import BOTH, NoPosition
from rllib_attention.nn.sending import send

# Rotations of the first steps are kept, 8 bytes for each pair of a head's entries.
_TABLE_SIZE = 2048


class RotaryPosition(NoPosition):
    """Rotary position embedding (Su et al. 2021, RoFormer).

    Angles are computed in float64 and only then rounded, so that a key cached at step 1,000,000 is
    as exact as one at step 0.

    Args:
        head_size: Size E of one head; must be even.
        base: Base of the geometric frequencies; 10,000 as in the paper.

    Raises:
        ValueError: If `head_size` is no even positive integer.
    """

    turns_cached = True

    def __init__(self, head_size: int, base: float = 10_000.0):
        super().__init__()
        check_int("head_size", head_size, 2)
        if head_size % 2:
            raise ValueError(f"`head_size` must be even for rotary positions, got {head_size}.")
        self._frequencies = tuple(base ** -(np.arange(0, head_size, 2) / head_size))
        self.key = ("rotary", head_size, base)

    def angles(self, steps: np.ndarray, device: torch.device) -> Tensor:
        """Returns the rotation of each time step.

        Args:
            steps: Integer time steps, (...).
            device: Where the tokens are.

        Returns:
            Unit complex numbers, (..., 1, E/2), complex64, to broadcast over heads.
        """
        return send(rotations(steps, self._frequencies), device)

    def rotate(self, x: Tensor, angles: Tensor | None, heads: slice = BOTH) -> Tensor:
        """Rotates queries or keys to their time steps, each pair of neighbours as one number.

        Args:
            x: Queries or keys, (..., H, E).
            angles: From `angles`, (..., 1, E/2), or the same as pairs of numbers, (..., 1, E/2, 2).
            heads: Ignored: queries and keys are rotated alike.

        Returns:
            The rotated tensor, (..., H, E).
        """
        assert angles is not None  # `angles` never returns None here
        return turned(x.float().unflatten(-1, (-1, 2)), angles).to(x.dtype)

    def rotate_(self, x: Tensor, angles: Tensor | None) -> None:
        """Rotates queries or keys in place, for passes without gradients.

        Args:
            x: Queries or keys, (..., H, E).
            angles: From `angles`, (..., 1, E/2).
        """
        assert angles is not None
        if x.dtype == torch.float32:
            torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(angles)
        else:
            x.copy_(self.rotate(x, angles))


class RecencyPosition(RotaryPosition):
    """Rotary positions, and scores that fall with the distance, in each head at its own rate.

    Scores lose m_h for each step between query and key, with m = 1, 1/4, 1/16, … and 0 for the last
    head, which looks at the whole window alike. The bias is that of ALiBi (Press et al. 2022). So a
    fresh model attends mostly to what has just happened, as a recurrent one does, and what lies far
    back must prove its worth: a long past is different in every step, and easy to memorise.

    Args:
        num_heads: Heads H.
        head_size: Size E of one head; must be even.

    Raises:
        ValueError: If `head_size` is odd.
    """

    slopes: Tensor

    def __init__(self, num_heads: int, head_size: int):
        super().__init__(head_size)
        slopes = torch.tensor([*(0.25**head for head in range(num_heads - 1)), 0.0])
        self.register_buffer("slopes", slopes, persistent=False)
        self.key = ("recency", num_heads, head_size)

    def fixed_bias(self, distance: Tensor) -> Tensor:
        """Returns -m_h times the distance.

        Args:
            distance: Strides from key to query, (Q, K) or (..., 1, Q, K), integers.

        Returns:
            (H, Q, K) or (..., H, Q, K).
        """
        return -self.slopes[:, None, None] * distance


def turned(pairs: Tensor, angles: Tensor) -> Tensor:
    """Turns pairs of numbers, each pair as one complex number.

    Args:
        pairs: (..., F, 2), float32.
        angles: Unit complex numbers, (..., F), or the same as pairs, (..., F, 2), for compilers.

    Returns:
        (..., 2*F).
    """
    if angles.is_complex():
        return torch.view_as_real(torch.view_as_complex(pairs) * angles).flatten(-2)
    cos, sin = angles.unbind(-1)
    left, right = pairs.unbind(-1)
    both = left * cos - right * sin, left * sin + right * cos
    return torch.stack(both, dim=-1).flatten(-2)


def rotations(steps: np.ndarray, frequencies: tuple[float, ...]) -> np.ndarray:
    """Returns how far each frequency has turned at each time step.

    Args:
        steps: Integer time steps, (...).
        frequencies: Radians a step, F of them.

    Returns:
        Unit complex numbers, (..., 1, F), complex64, to broadcast over heads.
    """
    # Most steps are small ones, and to look them up is many times faster.
    if steps.size and steps.min() >= 0 and steps.max() < _TABLE_SIZE:
        return _table(frequencies)[steps]
    return _rotations(steps, frequencies)


@functools.lru_cache(maxsize=8)
def _table(frequencies: tuple[float, ...]) -> np.ndarray:
    return _rotations(np.arange(_TABLE_SIZE), frequencies)


def _rotations(steps: np.ndarray, frequencies: tuple[float, ...]) -> np.ndarray:
    return np.exp(1j * steps[..., None, None] * np.array(frequencies)).astype(np.complex64)
