"""How a sub-layer's output joins its input: residual sum, or GTrXL's GRU gate."""

import torch
from torch import Tensor, nn

GATES = ("residual", "gru")


class ResidualGate(nn.Module):
    """The plain residual O = H + C."""

    def forward(self, x: Tensor, update: Tensor) -> Tensor:
        """Adds the update to the input.

        Args:
            x: The sub-layer's input H, (..., D).
            update: The sub-layer's output C, (..., D).

        Returns:
            (..., D).
        """
        return x + update


class GRUGate(nn.Module):
    """GRU gating layer (Parisotto et al. 2019, Stabilizing Transformers for RL, section 3.2).

    As there, the update passes a ReLU first. The bias moves the update gate towards the
    identity, so that a new stack starts close to a memory-less policy.

    Args:
        dim: Embed dim D.
        bias: Initial bias of the update gate; the paper and RLlib take 2.
    """

    def __init__(self, dim: int, bias: float = 2.0):
        super().__init__()
        self.from_update = nn.Linear(dim, 3 * dim, bias=False)  # reset, update, candidate
        self.from_input = nn.Linear(dim, 2 * dim, bias=False)  # reset, update
        self.from_reset = nn.Linear(dim, dim, bias=False)  # candidate
        self.bias = nn.Parameter(torch.full((dim,), float(bias)))
        for block in (*self.from_update.weight.chunk(3), *self.from_input.weight.chunk(2)):
            nn.init.xavier_uniform_(block)
        nn.init.xavier_uniform_(self.from_reset.weight)

    def forward(self, x: Tensor, update: Tensor) -> Tensor:
        """Gates the update into the input.

        Args:
            x: The sub-layer's input, (..., D).
            update: The sub-layer's output, (..., D).

        Returns:
            (..., D).
        """
        reset_u, gate_u, candidate_u = self.from_update(update.relu()).chunk(3, dim=-1)
        reset_x, gate_x = self.from_input(x).chunk(2, dim=-1)
        reset = torch.sigmoid(reset_u + reset_x)
        gate = torch.sigmoid(gate_u + gate_x - self.bias)
        candidate = torch.tanh(candidate_u + self.from_reset(reset * x))
        return torch.lerp(x, candidate, gate)


def make_gate(name: str, *, dim: int, bias: float) -> nn.Module:
    """Builds a gate by name.

    Args:
        name: One of `GATES`.
        dim: Embed dim D.
        bias: Initial bias of the GRU gate.

    Raises:
        ValueError: If `name` is not one of `GATES`.
    """
    if name == "residual":
        return ResidualGate()
    if name == "gru":
        return GRUGate(dim, bias)
    raise ValueError(f"`gate` must be one of {GATES}, got {name!r}.")
