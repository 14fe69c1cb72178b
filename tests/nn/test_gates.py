"""The gates against their formulas."""

import re

import pytest
import torch

from rllib_attention.nn import GRUGate, ResidualGate
from rllib_attention.nn.gates import make_gate

DIM = 6


def inputs():
    torch.manual_seed(0)
    return torch.randn(5, DIM), torch.randn(5, DIM)


def test_residual_gate_adds():
    x, update = inputs()
    torch.testing.assert_close(ResidualGate()(x, update), x + update)


def test_gru_gate_is_that_of_the_paper():
    """r, z, h of Parisotto et al. 2019, section 3.2, on y = ReLU(update), row by row."""
    torch.manual_seed(1)
    gate, (x, update) = GRUGate(DIM, bias=0.7), inputs()
    w_r, w_z, w_h = gate.from_update.weight.split(DIM)
    u_r, u_z = gate.from_input.weight.split(DIM)
    u_h = gate.from_reset.weight
    for row, given, out in zip(x, update, gate(x, update), strict=True):
        y = given.clamp(min=0)
        r = torch.sigmoid(w_r @ y + u_r @ row)
        z = torch.sigmoid(w_z @ y + u_z @ row - 0.7)
        h = torch.tanh(w_h @ y + u_h @ (r * row))
        torch.testing.assert_close(out, (1 - z) * row + z * h, atol=1e-6, rtol=1e-5)


def test_a_large_bias_keeps_the_input():
    x, update = inputs()
    near, far = ((GRUGate(DIM, bias)(x, update) - x).norm() for bias in (20.0, 0.0))
    assert near < 1e-4 < far


@pytest.mark.parametrize("name", ["residual", "gru"])
def test_project_is_the_projection_joined(name):
    gate, (x, _) = make_gate(name, dim=DIM, bias=2.0), inputs()
    inner, weight = torch.randn(5, 3), torch.randn(3, DIM)
    torch.testing.assert_close(
        gate.project(x, inner, weight), gate(x, inner @ weight), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GRUGate(0), "`dim` must be an integer of at least 1, got 0."),
        (lambda: GRUGate(2.0), "`dim` must be an integer of at least 1, got 2.0."),
        (lambda: GRUGate(4, float("nan")), "`bias` must be a finite number, got nan."),
        (lambda: GRUGate(4, float("-inf")), "`bias` must be a finite number, got -inf."),
        (
            lambda: make_gate("highway", dim=4, bias=2.0),
            "`gate` must be one of ('residual', 'gru'), got 'highway'.",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
