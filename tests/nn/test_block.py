"""The order of norms, sub-layers and gates in a block."""

import re

import pytest
import torch

from rllib_attention.nn import (
    Block,
    FeedForward,
    GRUGate,
    MultiHeadAttention,
    NoPosition,
    ResidualGate,
    Transformer,
)

DIM = 4


class LastTwo:
    """A view that keeps two tokens, whose C is three times the normed token."""

    def attend(self, attention, x):
        self.attention = attention
        return 3 * self.keep(x)

    def keep(self, x):
        return x[-2:]


def build(feed_forward=None, feed_forward_gate=None, attention_gate=None, dim=DIM, **options):
    attention, gate = MultiHeadAttention(DIM, 1, 2, NoPosition()), attention_gate or ResidualGate()
    return Block(attention, gate, feed_forward, feed_forward_gate, dim, **options)


def tokens():
    torch.manual_seed(0)
    return torch.randn(5, DIM)


def normed(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return scaled * norm.weight + norm.bias


def test_a_block_without_feed_forward():
    block, x, view = build(), tokens(), LastTwo()
    torch.nn.init.normal_(block.attention_norm.weight)
    expected = x[-2:] + 3 * normed(block.attention_norm, x[-2:])
    torch.testing.assert_close(block(x, view), expected, atol=1e-6, rtol=1e-5)
    assert view.attention is block.attention


def test_a_block_that_embeds_the_start():
    block, x, view = build(start_embedding=True), tokens(), LastTwo()
    view.missing = torch.tensor([[0.75], [0.0]])
    c = 3 * normed(block.attention_norm, x[-2:])
    expected = x[-2:] + torch.stack((block.start(c[0], view.missing[0]), c[1]))
    torch.testing.assert_close(block(x, view), expected, atol=1e-6, rtol=1e-5)


def test_a_block_with_gates_and_feed_forward():
    torch.manual_seed(1)
    block = build(FeedForward(DIM, 6), GRUGate(DIM), GRUGate(DIM))
    for norm in (block.attention_norm, block.feed_forward_norm):
        torch.nn.init.normal_(norm.weight)
    x = tokens()
    middle = block.attention_gate(x[-2:], 3 * normed(block.attention_norm, x[-2:]))
    update = block.feed_forward(normed(block.feed_forward_norm, middle))
    expected = block.feed_forward_gate(middle, update)
    torch.testing.assert_close(block(x, LastTwo()), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "`dim` must be an integer of at least 1, got 0."),
        (
            {"feed_forward": FeedForward(DIM, 2)},
            "`feed_forward_gate` must be given with `feed_forward` and only then, got None with "
            "FeedForward(",
        ),
        (
            {"feed_forward_gate": ResidualGate()},
            "`feed_forward_gate` must be given with `feed_forward` and only then, got "
            "ResidualGate() with None.",
        ),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**options)


def test_written_parameters_are_all_but_those_of_where_it_looks():
    model = Transformer(
        dim=8,
        num_layers=1,
        num_heads=2,
        head_size=4,
        window=3,
        ffn_dim=8,
        position="relative",
        gate="gru",
    )
    [block] = model.blocks
    names = {p: name for name, p in block.named_parameters()}
    written = {names.pop(p) for p in block.written_parameters()}
    assert {"attention.value.weight", "attention.out.weight"} < written
    assert sorted(names.values()) == [
        "attention.look.weight",
        "attention.position.content_bias",
        "attention.position.position_bias",
        "attention.position.project.weight",
    ]
