"""Relative positions: rotary, rotary with a recency bias, Transformer-XL, and none.

Every scheme depends on the distance between query and key only, so shifting an episode's clock
changes nothing. Shapes: B batch, H heads, N tokens, Q queries, K keys, W window, D embed dim,
E head size.
"""

import functools
from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor, nn

from rllib_attention.nn.checks import check_choice, check_int
from rllib_attention.nn.sending import send

POSITIONS = ("recency", "rotary", "relative", "none")

# Rotations of the first steps are kept, 8 bytes for each pair of a head's entries.
_TABLE_SIZE = 2048


class NoPosition(nn.Module):
    """No position information: attention is a set operation over the window.

    Attributes:
        key: What `angles` and `fixed_bias` depend on besides their arguments: schemes with the same
            key have the same.
    """

    key: Hashable = None

    def angles(self, steps: np.ndarray, device: torch.device) -> Tensor | None:
        """Returns what `rotate` needs for tokens at these time steps: nothing here.

        Args:
            steps: Integer time steps, (...).
            device: Where the tokens are.
        """
        return None

    def rotate(self, x: Tensor, angles: Tensor | None) -> Tensor:
        """Returns queries or keys unchanged.

        Args:
            x: Queries or keys, (..., H, E).
            angles: Ignored.
        """
        return x

    def rotate_(self, x: Tensor, angles: Tensor | None) -> None:
        """Does the same in place, for passes without gradients.

        Args:
            x: Queries or keys, (..., H, E).
            angles: Ignored.
        """

    def split_query(self, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the query for the content score and the one for the position score (None)."""
        return query, None

    def rows(self) -> Tensor | None:
        """Returns what `bias` needs and what depends on weights alone: nothing here."""
        return None

    def fixed_bias(self, distance: Tensor) -> Tensor | None:
        """Returns what is added to scores whatever the query and the weights: nothing here.

        Args:
            distance: Strides from key to query, (Q, K) or (..., 1, Q, K), integers; in [0, W)
                wherever a query may attend.
        """
        return None

    def bias(self, query: Tensor, distance: Tensor, rows: Tensor | None) -> Tensor:
        """Not used: only schemes with a position query have a bias.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{type(self).__name__} has no position bias.")


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

    def __init__(self, head_size: int, base: float = 10_000.0):
        super().__init__()
        check_int("head_size", head_size, 2)
        if head_size % 2:
            raise ValueError(f"`head_size` must be even for rotary positions, got {head_size}.")
        self.head_size, self.base = head_size, base
        self.key = ("rotary", head_size, base)

    def angles(self, steps: np.ndarray, device: torch.device) -> Tensor:
        """Returns the rotation of each time step.

        Args:
            steps: Integer time steps, (...).
            device: Where the tokens are.

        Returns:
            Unit complex numbers, (..., 1, E/2), complex64, to broadcast over heads.
        """
        # Most steps are small ones, and to look them up is many times faster.
        if steps.size and steps.min() >= 0 and steps.max() < _TABLE_SIZE:
            rotations = _rotation_table(self.head_size, self.base)[steps]
        else:
            rotations = _rotations(self.head_size, self.base, steps)
        return send(rotations, device)

    def rotate(self, x: Tensor, angles: Tensor | None) -> Tensor:
        """Rotates queries or keys to their time steps, each pair of neighbours as one number.

        Args:
            x: Queries or keys, (..., H, E).
            angles: From `angles`, (..., 1, E/2), or the same as pairs of numbers, (..., 1, E/2, 2).

        Returns:
            The rotated tensor, (..., H, E).
        """
        assert angles is not None  # `angles` never returns None here
        if not angles.is_complex():
            cos, sin = angles.unbind(-1)
            left, right = x.float().unflatten(-1, (-1, 2)).unbind(-1)
            pair = left * cos - right * sin, left * sin + right * cos
            return torch.stack(pair, dim=-1).flatten(-2).to(x.dtype)
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * angles).flatten(-2).to(x.dtype)

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


class RelativePosition(NoPosition):
    """Transformer-XL relative positions (Dai et al. 2019, section 3.3), as GTrXL uses them.

    score = ((q + u) k + (q + v) r_distance) / sqrt(E), with r a linear map of sinusoids.
    Initialisation follows RLlib's `RelativeMultiHeadAttention`.

    Args:
        dim: Embed dim D, the size of the sinusoids.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Largest distance + 1.

    Raises:
        ValueError: If a size is no positive integer.
    """

    sinusoids: Tensor

    def __init__(self, dim: int, num_heads: int, head_size: int, window: int):
        super().__init__()
        sizes = {"dim": dim, "num_heads": num_heads, "head_size": head_size, "window": window}
        for name, value in sizes.items():
            check_int(name, value, 1)
        self.num_heads, self.head_size = num_heads, head_size
        self.content_bias = nn.Parameter(torch.empty(num_heads, 1, head_size))
        self.position_bias = nn.Parameter(torch.empty(num_heads, 1, head_size))
        for parameter in (self.content_bias, self.position_bias):
            nn.init.xavier_uniform_(parameter.view(num_heads, head_size))
        self.project = nn.Linear(dim, num_heads * head_size, bias=False)
        nn.init.xavier_uniform_(self.project.weight)
        self.register_buffer("sinusoids", _sinusoids(window, dim), persistent=False)

    def split_query(self, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns q + u for the content score and q + v for the position score.

        Args:
            query: (..., H, Q, E).
        """
        return query + self.content_bias, query + self.position_bias

    def rows(self) -> Tensor:
        """Returns r of each distance, (H, E, W)."""
        rows = self.project(self.sinusoids).view(-1, self.num_heads, self.head_size)
        return rows.permute(1, 2, 0)

    def bias(self, query: Tensor, distance: Tensor, rows: Tensor | None) -> Tensor:
        """Returns the position score (q + v) r_distance, not yet divided by sqrt(E).

        Args:
            query: q + v, (..., H, Q, E).
            distance: Steps from key to query, (Q, K) or (..., 1, Q, K); what lies outside of
                [0, W) takes the score of the nearest distance.
            rows: From `rows`.

        Returns:
            (..., H, Q, K).
        """
        assert rows is not None  # `rows` never returns None here
        table = query @ rows  # (..., H, Q, W)
        distance = distance.clamp(0, rows.shape[-1] - 1)
        return table.gather(-1, distance.expand(*table.shape[:-1], distance.shape[-1]))


@functools.lru_cache(maxsize=8)
def _rotation_table(head_size: int, base: float) -> np.ndarray:
    return _rotations(head_size, base, np.arange(_TABLE_SIZE))


def _rotations(head_size: int, base: float, steps: np.ndarray) -> np.ndarray:
    frequencies = base ** -(np.arange(0, head_size, 2) / head_size)
    return np.exp(1j * steps[..., None, None] * frequencies).astype(np.complex64)


def _sinusoids(window: int, dim: int) -> Tensor:
    """Returns sin and cos of each distance 0 … W-1, (W, D), as RLlib's GTrXL orders them."""
    frequencies = 10_000.0 ** -(torch.arange(0, dim, 2.0, dtype=torch.float64) / dim)
    phase = torch.arange(window, dtype=torch.float64).unsqueeze(-1) * frequencies
    return torch.cat((phase.sin(), phase.cos()), dim=-1)[:, :dim].to(torch.float32)


def make_position(
    name: str, *, dim: int, num_heads: int, head_size: int, window: int
) -> NoPosition:
    """Builds a position scheme by name.

    Args:
        name: One of `POSITIONS`.
        dim: Embed dim D.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Time steps W that a query attends to.

    Raises:
        ValueError: If `name` is not one of `POSITIONS`.
    """
    check_choice("position", name, POSITIONS)
    if name == "recency":
        return RecencyPosition(num_heads, head_size)
    if name == "rotary":
        return RotaryPosition(head_size)
    if name == "relative":
        return RelativePosition(dim, num_heads, head_size, window)
    return NoPosition()
