"""Rows and packed tokens compute one function, gradients included; nothing else gets in."""

import re

import pytest
import torch

from rllib_attention.nn import Transformer
from tests.nn.rows import DIM, STEPS, build, by_episode, gradient, packed, ragged_rows

OPTIONS = [
    {
        "position": position,
        "gate": gate,
        "num_layers": num_layers,
        "window": window,
        "ffn_dim": ffn_dim,
    }
    for position, gate in [
        ("rotary", "residual"),
        ("recency", "residual"),
        ("relative", "gru"),
        ("none", "residual"),
    ]
    for num_layers, window in [(1, 1), (1, 6), (2, 4), (3, 3), (2, 40)]
    for ffn_dim in (0, 8)
]
POSITIONS = ["recency", "rotary", "relative", "none"]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_rows_and_packed_tokens_agree(options):
    model = build(**options)
    x, valid = ragged_rows(model)
    expected = by_episode(model, x, valid)
    seen = valid[:, -STEPS:]
    for out in (model.forward_rows(x, valid, STEPS), packed(model, x, valid)):
        torch.testing.assert_close(out[seen], expected[seen], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            gradient(out, valid, x), gradient(expected, valid, x), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("position", POSITIONS)
def test_receptive_field_is_exact(position):
    """Output t depends on inputs t-C … t, on each of them, and on nothing else."""
    num_layers, window, size = 2, 3, 12
    model = build(position=position, num_layers=num_layers, window=window)
    x = torch.randn(1, size, DIM, requires_grad=True)
    out = packed(model, x, torch.ones(1, size, dtype=torch.bool), size)
    for t in range(size):
        (grad,) = torch.autograd.grad(out[0, t].pow(2).sum(), x, retain_graph=True)
        touched = grad[0].abs().sum(-1) > 0
        first = max(0, t - num_layers * (window - 1))
        assert touched.nonzero().squeeze(1).tolist() == list(range(first, t + 1))


@pytest.mark.parametrize("num_layers", [1, 3])
def test_fresh_outputs_have_norm_one(num_layers):
    model = build(num_layers=num_layers, window=4)
    x, valid = ragged_rows(model)
    out = model.forward_rows(x, valid, STEPS)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(len(out), STEPS), atol=1e-3, rtol=0)


def test_rows_do_not_see_each_other():
    model = build(num_layers=2, window=4)
    x, valid = ragged_rows(model)
    changed = x.detach().clone()
    changed[1] *= -1  # a constant would vanish in the norms
    before, after = (packed(model, rows, valid) for rows in (x, changed))
    untouched = torch.tensor([0, 2, 3])
    torch.testing.assert_close(before[untouched], after[untouched], atol=0, rtol=0)
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("position", POSITIONS)
def test_training_after_inference_mode(position):
    """What is kept between passes must serve autograd too, whichever pass came first."""
    model = build(position=position, num_layers=2, window=7)
    x, valid = ragged_rows(model)
    with torch.inference_mode():
        expected = packed(model, x, valid)
    out = packed(model, x, valid)
    # With gradients, torch may choose another kernel.
    torch.testing.assert_close(out, expected.clone(), atol=1e-5, rtol=1e-5)
    assert gradient(out, valid, x).abs().sum() > 0


@pytest.mark.parametrize("position", POSITIONS)
def test_autocast(position):
    """Kernels run in bfloat16: 8 bits of mantissa are 0.4% a rounding, and there are a few."""
    model = build(position=position, num_layers=2, window=4)
    x, valid = ragged_rows(model)
    seen = valid[:, -STEPS:]
    exact = packed(model, x, valid)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = packed(model, x, valid), model.forward_rows(x, valid, STEPS)
    for out in rounded:
        error = distance(out[seen], exact[seen])
        assert 1e-4 < error < 0.02
        error = distance(gradient(out, valid, x), gradient(exact, valid, x))
        assert 1e-4 < error < 0.05


def distance(x, expected):
    return float((x.float() - expected).norm() / expected.norm())


def test_dropout_acts_when_asked_only():
    model = build(num_layers=2, window=4, dropout=0.5)
    x, valid = ragged_rows(model)
    for run in (
        lambda dropout: packed(model, x, valid, dropout=dropout),
        lambda dropout: model.forward_rows(x, valid, STEPS, dropout=dropout),
    ):
        torch.testing.assert_close(run(False), run(False), atol=0, rtol=0)
        assert distance(run(True), run(False)) > 0.01


def test_recorded_weights_are_those_that_were_used():
    """With one layer and no feed-forward, output = norm(x + out(α V))."""
    model = build(num_layers=1, window=4)
    x, valid = ragged_rows(model)
    weights: list = []
    out = model.forward_rows(x, valid, STEPS, weights=weights)
    torch.testing.assert_close(out, model.forward_rows(x, valid, STEPS), atol=1e-6, rtol=1e-5)
    (block,) = model.blocks
    value = block.attention.qkv(block.attention_norm(x))[..., -DIM:]
    value = value.unflatten(-1, (2, 8)).transpose(1, 2)
    context = block.attention.merge((weights[0] @ value).transpose(1, 2))
    expected = model.norm(x[:, -STEPS:] + context)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_layers": 0}, "`num_layers` must be an integer of at least 1, got 0."),
        ({"window": 0}, "`window` must be an integer of at least 1, got 0."),
        ({"ffn_dim": -1}, "`ffn_dim` must be an integer of at least 0, got -1."),
        ({"dim": 0}, "`dim` must be an integer of at least 1, got 0."),
        ({"dropout": 1.0}, "`dropout` must be a finite number in [0, 1), got 1.0."),
        ({"head_size": 5}, "`head_size` must be even for rotary positions, got 5."),
        (
            {"position": "absolute"},
            "`position` must be one of ('recency', 'rotary', 'relative', 'none'), got 'absolute'.",
        ),
        ({"gate": "highway"}, "`gate` must be one of ('residual', 'gru'), got 'highway'."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(fields, message):
    options = {"dim": 8, "num_heads": 2, "head_size": 4, "num_layers": 1, "window": 2}
    with pytest.raises(ValueError, match=re.escape(message)):
        Transformer(**options | fields)
