"""Each view against attention worked out token by token."""

import numpy as np
import pytest
import torch

from rllib_attention.nn import (
    MultiHeadAttention,
    NoPosition,
    PackedLayout,
    PackedView,
    PrefillView,
    RecordedView,
    RowsView,
)
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


def expected_at(attention, row, start, t, stride):
    """C at one step of a row, from its window alone."""
    seen = row[[u for u in range(t - (WINDOW - 1) * stride, t + 1, stride) if u >= start]]
    query, key = attention.look(seen).unflatten(-1, (2, HEADS, HEAD_SIZE)).unbind(1)
    value = attention.value(seen).unflatten(-1, (HEADS, HEAD_SIZE))
    scores = torch.einsum("he,khe->hk", query[-1], key) / HEAD_SIZE**0.5
    return attention.out(torch.einsum("hk,khe->he", scores.softmax(-1), value).flatten())


def tokens_of(first, stride=1):
    """(row, position) of the valid tokens from a position on, sorted for a stride."""
    tokens = [(r, t) for r, (a, b) in enumerate(SPANS) for t in range(max(a, first), b)]
    return sorted(tokens, key=lambda token: (token[0], token[1] % stride, token[1]))


def all_at(attention, x, tokens, stride):
    return torch.stack([expected_at(attention, x[r], SPANS[r][0], t, stride) for r, t in tokens])


def sorted_layout(valid, num_outputs, stride):
    first = valid.int().argmax(dim=1).numpy()
    stop = first + valid.sum(dim=1).numpy()
    return PackedLayout(first, stop, SIZE, num_outputs, stride=stride)


def assert_same(x, actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    gradients = (
        torch.autograd.grad(y.pow(2).sum(), x, retain_graph=True)[0] for y in (actual, expected)
    )
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("context", [0, CONTEXT, 100])
@pytest.mark.parametrize(("stride", "next_stride"), [(1, 1), (1, 3), (2, 4), (3, 1)])
def test_packed_view(context, stride, next_stride):
    attention = attention_layer()
    x, valid = rows()
    layout = sorted_layout(valid, OUTPUTS, stride)
    view = PackedView(layout, context, next_stride, WINDOW)
    kept = tokens_of(SIZE - OUTPUTS - context, next_stride)
    assert list(zip(view.kept.row.tolist(), view.kept.position.tolist(), strict=True)) == kept
    tokens = layout.pack(x)
    torch.testing.assert_close(view.keep(tokens), torch.stack([x[r, t] for r, t in kept]))
    assert_same(x, view.attend(attention, tokens), all_at(attention, x, kept, stride))


def test_packed_view_without_tokens_to_keep():
    x, valid = rows()
    layout = layout_of(valid, 0)
    view = PackedView(layout, 0, 1, WINDOW)
    assert view.attend(attention_layer(), layout.pack(x)).shape == (0, DIM)


@pytest.mark.parametrize(
    ("stride", "steps"), [(1, [4, 5, 6, 7, 8, 9, 10]), (2, [6, 8, 10]), (3, [1, 4, 7, 8, 10])]
)
def test_rows_view(stride, steps):
    attention = attention_layer()
    x, valid = rows()
    view = RowsView(valid, np.arange(SIZE), np.array(steps), WINDOW, stride)
    assert torch.equal(view.keep(x), x[:, steps])
    kept = [(r, t) for r, t in tokens_of(0) if t in steps]
    out = view.attend(attention, x)
    out = torch.stack([out[r, steps.index(t)] for r, t in kept])
    assert_same(x, out, all_at(attention, x, kept, stride))


@pytest.mark.parametrize(("stride", "next_stride"), [(1, 1), (1, 3), (2, 4), (3, 1)])
def test_recorded_view(stride, next_stride):
    attention = attention_layer()
    x, _ = rows()
    weights: list = []
    whole = np.array([0]), np.array([SIZE])
    layout = PackedLayout(*whole, SIZE, SIZE, stride=stride)
    view = RecordedView(layout, next_stride, WINDOW, weights)
    kept = [(0, t) for t in sorted(range(SIZE), key=lambda t: (t % next_stride, t))]
    out = view.attend(attention, layout.pack(x[:1]))
    assert_same(x, out, all_at(attention, x, kept, stride))
    # What was written down makes the same output, whichever way the tokens were sorted.
    [by_lag] = weights
    _, _, value = attention.project(x[0], None)
    for place, (_, t) in enumerate(kept):
        keys = range(t, max(-1, t - WINDOW * stride), -stride)
        context = torch.einsum("hk,khe->he", by_lag[:, t, : len(keys)], value[list(keys)])
        torch.testing.assert_close(attention.out(context.flatten()), out[place])
        assert not by_lag[:, t, len(keys) :].any()


class Recorder:
    """Stands for a KV cache and remembers what it is given."""

    def fill(self, layer, slots, steps, key, value):
        self.layer, self.key, self.value = layer, key, value
        self.where = list(zip(slots.tolist(), steps.tolist(), strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_prefill_view(stride):
    attention = attention_layer()
    x, valid = rows()
    layout, cache = sorted_layout(valid[:2], 0, stride), Recorder()
    slots, steps = np.array([7, 3]), np.array([100, 11])
    view = PrefillView(layout, CONTEXT, 1, WINDOW, cache=cache, layer=1, slots=slots, steps=steps)
    kept = [(r, t) for r in (0, 1) for t in range(SIZE - CONTEXT, SIZE)]
    assert_same(x, view.attend(attention, layout.pack(x[:2])), all_at(attention, x, kept, stride))
    # Rings hold the last W steps of each residue.
    stored = [(r, t) for r, t in tokens_of(SIZE - WINDOW * stride, stride) if r < 2]
    assert cache.layer == 1
    assert cache.where == [(slots[r], steps[r] - SIZE + t) for r, t in stored]
    _, key, value = attention.project(torch.stack([x[r, t] for r, t in stored]), None)
    torch.testing.assert_close(cache.key, key)
    torch.testing.assert_close(cache.value, value)
