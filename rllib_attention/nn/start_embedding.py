"""What tells a block how much of its window lies before the episode.

Shapes: D embed dim, I what attention's output map is given.
"""

import torch
from torch import Tensor, nn

# Of the vector's numbers, at first: that of what attention adds.
_SIZE = 0.5


class StartEmbedding(nn.Module):
    """Turns attention's output C into (1 - m s) C + m e, with s and e learned.

    m is the share of the window that lies before the episode. C is a mean over the steps that there
    are, and does not tell how many. Where s is 1 it becomes their sum, as a share of what a full
    window of such steps would give.

    Args:
        dim: Embed dim D.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.vector = nn.Parameter(torch.empty(dim).normal_(std=_SIZE))
        # From means to sums: at first each number is a mixture of its own.
        self.sum_share = nn.Parameter(torch.rand(dim))

    def forward(self, update: Tensor, missing: Tensor) -> Tensor:
        """Joins the share to attention's output.

        Args:
            update: C, (..., D).
            missing: m, (..., 1).

        Returns:
            (..., D).
        """
        return update + missing * (self.vector - self.sum_share * update)

    def outward(self, weight: Tensor) -> Tensor:
        """Returns the output map and this in one: what they do is linear in what `joined` returns.

        Args:
            weight: The output map, (I, D).

        Returns:
            (2 * I + 1, D).
        """
        return torch.cat((weight, weight * -self.sum_share, self.vector[None]))

    @staticmethod
    def joined(inner: Tensor, missing: Tensor) -> Tensor:
        """Returns what the map of `outward` is given.

        Args:
            inner: What the output map is given, (B, I).
            missing: m, (B, 1).

        Returns:
            (B, 2 * I + 1).
        """
        return torch.cat((inner, missing * inner, missing), dim=-1)
