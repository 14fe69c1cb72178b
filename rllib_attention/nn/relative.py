"""Learned scores of the distance between query and key.

Shapes: H heads, Q queries, K keys, W window, D embed dim, E head size, F waves.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from rllib_attention.nn.checks import check_int
from rllib_attention.nn.no_position import BOTH, NoPosition
from rllib_attention.nn.rotary import rotations, turned
from rllib_attention.nn.sending import send

# Twice as many numbers travel with each query and key, so that heads of 16 become heads of 32.
NUM_WAVES = 8


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
        sinusoids = _sinusoids(window, 10_000.0 ** -(np.arange(0, dim, 2) / dim))
        self.register_buffer("sinusoids", sinusoids[:, :dim], persistent=False)

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

    def bias(self, query: Tensor | None, distance: Tensor, rows: Tensor | None) -> Tensor:
        """Returns the position score (q + v) r_distance, not yet divided by sqrt(E).

        Args:
            query: q + v, (..., H, Q, E).
            distance: Steps from key to query, (Q, K) or (..., 1, Q, K); what lies outside of
                [0, W) takes the score of the nearest distance.
            rows: From `rows`.

        Returns:
            (..., H, Q, K).
        """
        assert query is not None
        assert rows is not None
        table = query @ rows  # (..., H, Q, W)
        distance = distance.clamp(0, rows.shape[-1] - 1)
        return table.gather(-1, distance.expand(*table.shape[:-1], distance.shape[-1]))


class RelativeBias(RelativePosition):
    """A learned score of the distance that is the same for every query.

    score = ((q + u) k + v r_distance) / sqrt(E), with r a linear map of sinusoids: the score of
    Transformer-XL without its term q r_distance, in which each query picks distances anew, so that
    a cue anywhere among noise is found by what it is and not by where it lies. What is left is the
    relative position bias of T5 (Raffel et al. 2020, section 2.1) as a sum of waves.

    A wave of the distance is a product of what the query's step and the key's step give. So it is
    handed to torch's fused kernels, which take no bias that needs gradients, as further numbers of
    queries and keys. A KV cache has keys without them: there `rows` and `bias` say the same.

    Args:
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Largest distance + 1. The fastest wave makes a quarter turn each step, the slowest
            one an eighth of a turn in the window.

    Raises:
        ValueError: If a size is no positive integer.
    """

    def __init__(self, num_heads: int, head_size: int, window: int):
        super().__init__(2 * NUM_WAVES, num_heads, head_size, window)
        frequencies = np.geomspace(math.pi / 2, math.pi / 4 / max(window, 2), NUM_WAVES)
        self.sinusoids.copy_(_sinusoids(window, frequencies))
        self._frequencies = tuple(frequencies.tolist())
        self.key = ("relative_bias", self._frequencies)

    def angles(self, steps: np.ndarray, device: torch.device) -> Tensor:
        """Returns how far the waves have turned at each time step.

        Args:
            steps: Integer time steps, (...).
            device: Where the tokens are.

        Returns:
            Unit complex numbers, (..., 1, F), complex64, to broadcast over heads.
        """
        return send(rotations(steps, self._frequencies), device)

    def rotate(self, x: Tensor, angles: Tensor | None, heads: slice = BOTH) -> Tensor:
        """Adds u to queries, and appends waves to both, whose products are v r of the distance.

        Args:
            x: Queries (..., H, E), keys (..., H, E), or queries and then keys, (..., 2*H, E).
            angles: From `angles`, (..., 1, F), or the same as pairs of numbers, (..., 1, F, 2).
            heads: Which of these 2*H heads `x` has.

        Returns:
            q + u, or k, and the waves, (..., E + 2*F).
        """
        assert angles is not None  # `angles` never returns None here
        content, waves = self._by_head()
        turns = turned(waves[heads].float(), angles).to(x.dtype)
        content = content[heads].to(x.dtype)
        return torch.cat((x + content, turns.expand(*x.shape[:-1], -1)), dim=-1)

    def rotate_(self, x: Tensor, angles: Tensor | None) -> None:
        """Adds u to the queries in place; `bias` does the rest.

        Args:
            x: Queries and then keys, (..., 2*H, E).
            angles: Ignored.
        """
        x[..., : self.num_heads, :] += self.content_bias.squeeze(1)

    def split_query(self, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the query as it is, and None: `rotate` has done all."""
        return query, None

    def rows(self) -> Tensor:
        """Returns v r of each distance, (H, 1, W)."""
        return self.position_bias @ super().rows()

    def bias(self, query: Tensor | None, distance: Tensor, rows: Tensor | None) -> Tensor:
        """Returns the position score v r_distance, not yet divided by sqrt(E).

        Args:
            query: Ignored.
            distance: Steps from key to query, (..., 1, Q, K), in [0, W).
            rows: From `rows`.

        Returns:
            (..., H, Q, K).
        """
        assert rows is not None
        shape = *distance.shape[:-3], self.num_heads, *distance.shape[-2:]
        return rows.expand(*shape[:-1], -1).gather(-1, distance.expand(shape))

    def _by_head(self) -> tuple[Tensor, Tensor]:
        """Returns what is added to each head, (2*H, E), and its waves, (2*H, F, 2), queries first.

        With queries' waves z e^(iwt) and keys' e^(iws) the real part of one times the other's
        conjugate is Re(z) cos w(t-s) - Im(z) sin w(t-s).
        """
        weight = self.project.weight.view(self.num_heads, self.head_size, -1)
        # No matrix product, which autocast would round.
        sine, cosine = (self.position_bias.mT * weight).sum(1).chunk(2, dim=-1)
        waves = torch.stack((cosine, -sine), dim=-1)
        one = torch.zeros_like(waves)
        one[..., 0] = 1.0
        content = self.content_bias.squeeze(1)
        return torch.cat((content, torch.zeros_like(content))), torch.cat((waves, one))


def _sinusoids(window: int, frequencies: np.ndarray) -> Tensor:
    """Returns sin and cos of each distance 0 … W-1, (W, 2*F), as RLlib's GTrXL orders them."""
    phase = np.arange(window)[:, None] * frequencies
    return torch.from_numpy(np.concatenate((np.sin(phase), np.cos(phase)), axis=-1)).float()
