"""How a sub-layer's output joins its input: residual sum, or GTrXL's GRU gate."""

import math

import torch
from torch import Tensor, nn

from rllib_attention.nn.checks import check_choice, check_int, check_number

GATES = ("residual", "gru")


class Gate(nn.Module):
    """Joins a sub-layer's output to its input."""

    def forward(self, x: Tensor, update: Tensor) -> Tensor:
        """Joins the update to the input.

        Args:
            x: The sub-layer's input H, (..., D).
            update: The sub-layer's output C, (..., D).

        Returns:
            (..., D).

        Raises:
            NotImplementedError: Always; each gate has its own.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `forward`.")

    def project(self, x: Tensor, inner: Tensor, weight: Tensor) -> Tensor:
        """Joins `inner @ weight`, the sub-layer's last projection, in as few kernels as possible.

        Args:
            x: The sub-layer's input H, (B, D).
            inner: What its last projection is given, (B, I).
            weight: That projection, (I, D).

        Returns:
            (B, D).
        """
        return self(x, inner @ weight)


class ResidualGate(Gate):
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

    def project(self, x: Tensor, inner: Tensor, weight: Tensor) -> Tensor:
        """Adds `inner @ weight` to the input, in one kernel.

        Args:
            x: The sub-layer's input H, (B, D).
            inner: What its last projection is given, (B, I).
            weight: That projection, (I, D).

        Returns:
            (B, D).
        """
        return torch.addmm(x, inner, weight)


class GRUGate(Gate):
    """GRU gating layer (Parisotto et al. 2019, Stabilizing Transformers for RL, section 3.2).

    As there, the update passes a ReLU first. The bias moves the update gate towards the
    identity, so that a new stack starts close to a memory-less policy.

    Args:
        dim: Embed dim D.
        bias: Initial bias of the update gate; the paper and RLlib take 2.

    Raises:
        ValueError: If `dim` is no positive integer, or `bias` is not finite.
    """

    def __init__(self, dim: int, bias: float = 2.0):
        super().__init__()
        check_int("dim", dim, 1)
        check_number("bias", bias, -math.inf, math.inf)
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
        # Under autocast, the results of linear maps are of another type.
        return torch.lerp(x, candidate.to(x.dtype), gate.to(x.dtype))


def make_gate(name: str, *, dim: int, bias: float) -> Gate:
    """Builds a gate by name.

    Args:
        name: One of `GATES`.
        dim: Embed dim D.
        bias: Initial bias of the GRU gate.

    Raises:
        ValueError: If `name` is not one of `GATES`.
    """
    check_choice("gate", name, GATES)
    return GRUGate(dim, bias) if name == "gru" else ResidualGate()
