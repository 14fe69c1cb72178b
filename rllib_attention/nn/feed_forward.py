"""The position-wise feed-forward network of a block."""

from torch import Tensor, nn

from rllib_attention.nn.checks import check_int


class FeedForward(nn.Module):
    """Two linear maps with a ReLU between, without biases, as in RLlib's GTrXL.

    RLlib's second ReLU, behind both maps, is part of `GRUGate` here.

    Args:
        dim: Embed dim D.
        hidden: Width of the hidden layer.
        gain: Share of Xavier's size at which the second map starts.

    Raises:
        ValueError: If a size is no positive integer.
    """

    def __init__(self, dim: int, hidden: int, gain: float = 1.0):
        super().__init__()
        check_int("dim", dim, 1)
        check_int("hidden", hidden, 1)
        self.expand = nn.Linear(dim, hidden, bias=False)
        self.contract = nn.Linear(hidden, dim, bias=False)
        nn.init.xavier_uniform_(self.expand.weight)
        nn.init.xavier_uniform_(self.contract.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Maps each token on its own.

        Args:
            x: (..., D).

        Returns:
            (..., D).
        """
        return self.contract(self.expand(x).relu())
