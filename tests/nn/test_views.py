"""Each view against attention worked out token by token."""

import numpy as np
import pytest
import torch

from rllib_attention.nn import MultiHeadAttention, NoPosition, PackedView, PrefillView, RowsView
from tests.nn.rows import DIM, HEAD_SIZE, HEADS, layout_of

SIZE, OUTPUTS, CONTEXT, WINDOW = 11, 4, 3, 5
# Rows that are full, short in front, without context, short behind, and of one step.
SPANS = [(0, 11), (5, 11), (7, 11), (0, 9), (7, 8)]


def rows():
    torch.manual_seed(0)
    valid = torch.zeros(len(SPANS), SIZE, dtype=torch.bool)
    for row, (start, stop) in enumerate(SPANS):
        valid[row, start:stop] = True
    return torch.randn(len(SPANS), SIZE, DIM, requires_grad=True), valid


def attention_layer():
    torch.manual_seed(1)
    return MultiHeadAttention(DIM, HEADS, HEAD_SIZE, NoPosition())


def expected_at(attention, row, start, t):
    """C at one step of a row, from its window alone."""
    seen = row[max(start, t - WINDOW + 1) : t + 1]
    query, key, value = attention.qkv(seen).unflatten(-1, (3, HEADS, HEAD_SIZE)).unbind(1)
    scores = torch.einsum("he,khe->hk", query[-1], key) / HEAD_SIZE**0.5
    return attention.out(torch.einsum("hk,khe->he", scores.softmax(-1), value).flatten())


def tokens_of(first):
    """(row, position) of the valid tokens from a position on, row by row."""
    return [(r, t) for r, (a, b) in enumerate(SPANS) for t in range(max(a, first), b)]


def assert_same(x, actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    gradients = (
        torch.autograd.grad(y.pow(2).sum(), x, retain_graph=True)[0] for y in (actual, expected)
    )
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("context", [0, CONTEXT, 100])
def test_packed_view(context):
    attention = attention_layer()
    x, valid = rows()
    layout = layout_of(valid, OUTPUTS)
    view = PackedView(layout, context, WINDOW)
    kept = tokens_of(SIZE - OUTPUTS - context)
    assert list(zip(view.kept.row.tolist(), view.kept.position.tolist(), strict=True)) == kept
    tokens = layout.pack(x)
    torch.testing.assert_close(view.keep(tokens), torch.stack([x[r, t] for r, t in kept]))
    expected = torch.stack([expected_at(attention, x[r], SPANS[r][0], t) for r, t in kept])
    assert_same(x, view.attend(attention, tokens), expected)


def test_packed_view_without_tokens_to_keep():
    x, valid = rows()
    layout = layout_of(valid, 0)
    assert PackedView(layout, 0, WINDOW).attend(attention_layer(), layout.pack(x)).shape == (0, DIM)


@pytest.mark.parametrize("weights", [None, []])
def test_rows_view(weights):
    attention = attention_layer()
    x, valid = rows()
    queries = OUTPUTS + CONTEXT
    view = RowsView(valid, queries, WINDOW, weights=weights)
    assert view.keep(x).shape == (len(SPANS), queries, DIM)
    assert torch.equal(view.keep(x), x[:, -queries:])
    kept = tokens_of(SIZE - queries)
    out = view.attend(attention, x)
    out = torch.stack([out[r, t - SIZE + queries] for r, t in kept])
    assert_same(
        x, out, torch.stack([expected_at(attention, x[r], SPANS[r][0], t) for r, t in kept])
    )
    if weights is not None:
        assert [w.shape for w in weights] == [(len(SPANS), HEADS, queries, SIZE)]


def test_recorded_weights_are_without_dropout():
    _, valid = rows()
    with pytest.raises(ValueError, match="`weights` must be None with `dropout`"):
        RowsView(valid, OUTPUTS, WINDOW, dropout=True, weights=[])


class Recorder:
    """Stands for a KV cache and remembers what it is given."""

    def fill(self, layer, slots, steps, key, value):
        self.layer, self.key, self.value = layer, key, value
        self.where = list(zip(slots.tolist(), steps.tolist(), strict=True))


def test_prefill_view():
    attention = attention_layer()
    x, valid = rows()
    layout, cache = layout_of(valid[:2], 0), Recorder()
    slots, steps = np.array([7, 3]), np.array([100, 11])
    view = PrefillView(layout, CONTEXT, WINDOW, cache=cache, layer=1, slots=slots, steps=steps)
    tokens = layout.pack(x[:2])
    kept = [(r, t) for r in (0, 1) for t in range(SIZE - CONTEXT, SIZE)]
    out = view.attend(attention, tokens)
    assert_same(
        x, out, torch.stack([expected_at(attention, x[r], SPANS[r][0], t) for r, t in kept])
    )
    # A ring holds the last W steps.
    stored = [(r, t) for r in (0, 1) for t in range(SIZE - WINDOW, SIZE)]
    assert cache.layer == 1
    assert cache.where == [(slots[r], steps[r] - SIZE + t) for r, t in stored]
    _, key, value = attention.project(torch.stack([x[r, t] for r, t in stored]), None)
    torch.testing.assert_close(cache.key, key)
    torch.testing.assert_close(cache.value, value)
