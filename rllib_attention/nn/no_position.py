"""What every position scheme offers to attention, and the scheme that adds nothing.

Shapes: H heads, Q queries, K keys, W window, E head size.
"""

from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor, nn

# Of the heads of queries and keys, which lie in one tensor, queries first.
BOTH = slice(None)


class NoPosition(nn.Module):
    """No position information: attention is a set operation over the window.

    Passes over many tokens call `rotate`, and `bias` if `split_query` returns a position query.
    Single steps, whose keys are cached, call `rotate_`, and `bias` if `rows` returns something.

    Attributes:
        key: What `angles` and `fixed_bias` depend on besides their arguments: schemes with the same
            key have the same.
        turns_cached: Whether `rotate_` needs angles.
    """

    key: Hashable = None
    turns_cached: bool = False

    def angles(self, steps: np.ndarray, device: torch.device) -> Tensor | None:
        """Returns what `rotate` needs for tokens at these time steps: nothing here.

        Args:
            steps: Integer time steps, (...).
            device: Where the tokens are.
        """
        return None

    def rotate(self, x: Tensor, angles: Tensor | None, heads: slice = BOTH) -> Tensor:
        """Returns queries or keys unchanged.

        Args:
            x: Queries (..., H, E), keys (..., H, E), or queries and then keys, (..., 2*H, E).
            angles: Ignored.
            heads: Which of these 2*H heads `x` has; ignored.
        """
        return x

    def rotate_(self, x: Tensor, angles: Tensor | None) -> None:
        """Leaves queries and keys as they are, as a KV cache holds them.

        Args:
            x: Queries and then keys, (..., 2*H, E).
            angles: Ignored.
        """

    def split_query(self, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the query for the content score and the one for the position score, if any.

        Args:
            query: (..., H, Q, E).
        """
        return query, None

    def rows(self) -> Tensor | None:
        """Returns what `bias` needs and what depends on weights alone: None without a bias."""
        return None

    def fixed_bias(self, distance: Tensor) -> Tensor | None:
        """Returns what is added to scores whatever the query and the weights: nothing here.

        Args:
            distance: Strides from key to query, (Q, K) or (..., 1, Q, K), integers; in [0, W)
                wherever a query may attend.
        """
        return None

    def bias(self, query: Tensor | None, distance: Tensor, rows: Tensor | None) -> Tensor:
        """Not used: this scheme has no bias that is learned.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{type(self).__name__} has no position bias.")
