"""Packing and trimming against loops over single tokens."""

import re

import numpy as np
import pytest
import torch

from rllib_attention.nn import PackedLayout

SIZE, OUTPUTS = 9, 4
# Rows that are full, short in front, short behind, without context, of one step, and empty.
FIRST = np.array([0, 3, 0, 5, 8, 5])
STOP = np.array([9, 9, 6, 7, 9, 5])


def layout(stride=1):
    return PackedLayout(FIRST, STOP, SIZE, OUTPUTS, stride=stride)


def tokens_of(first, stop, stride=1):
    """(row, position) of each valid token, in packed order."""
    tokens = [(r, p) for r in range(len(first)) for p in range(first[r], stop[r])]
    return sorted(tokens, key=lambda token: (token[0], token[1] % stride, token[1]))


def rows_of_positions():
    row, position = np.indices((len(FIRST), SIZE))
    return torch.from_numpy(np.stack((row, position), axis=-1))


def test_pack_takes_the_valid_tokens_in_order():
    for stride in (1, 2, 4):
        packed = layout(stride).pack(rows_of_positions())
        assert list(map(tuple, packed.tolist())) == tokens_of(FIRST, STOP, stride)
    full = PackedLayout(np.zeros(2, int), np.full(2, 3), 3, 3)
    rows = torch.randn(2, 3, 5)
    assert full.pack(rows).data_ptr() == rows.data_ptr()  # nothing is copied


@pytest.mark.parametrize("context", [0, 1, 3, 5, 100])
@pytest.mark.parametrize(("stride", "next_stride"), [(1, 1), (1, 3), (3, 9), (3, 1), (2, 3)])
def test_trimmed_keeps_the_outputs_and_their_context(context, stride, next_stride):
    before = layout(stride)
    kept, index = before.trimmed(context, next_stride)
    first = [min(max(f, SIZE - OUTPUTS - context), s) for f, s in zip(FIRST, STOP, strict=True)]
    expected = tokens_of(first, STOP, next_stride)
    assert list(zip(kept.row.tolist(), kept.position.tolist(), strict=True)) == expected
    tokens = tokens_of(FIRST, STOP, stride)
    assert list(zip(before.row.tolist(), before.position.tolist(), strict=True)) == tokens
    assert [tokens[i] for i in index.tolist()] == expected


def test_unpack_puts_outputs_back():
    kept, _ = layout().trimmed(0)
    tokens = 1.0 + torch.arange(len(kept.row)).unsqueeze(-1)
    out = layout().unpack(tokens)
    expected = torch.zeros(len(FIRST), OUTPUTS, 1)
    outputs = [(r, p) for r, p in tokens_of(FIRST, STOP) if p >= SIZE - OUTPUTS]
    for token, (row, position) in zip(tokens, outputs, strict=True):
        expected[row, position - (SIZE - OUTPUTS)] = token
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_blocked_shows_each_query_its_own_row(window, stride):
    tokens = layout(stride)
    _, query = tokens.trimmed(1)
    blocked = tokens.blocked(query, tokens.before(window, query))
    packed = tokens_of(FIRST, STOP, stride)
    allowed = [
        min(window, (packed[i][1] - FIRST[packed[i][0]]) // stride + 1) for i in query.tolist()
    ]
    counts = (blocked.mask.bias == 0).sum(-1, keepdim=True)
    assert blocked.merge(counts).flatten().tolist() == allowed


def test_a_wrong_stride_is_named():
    with pytest.raises(ValueError, match="`stride` must be an integer of at least 1, got 0"):
        layout(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], [3], -1, 0), "`size` must be an integer of at least 0, got -1."),
        (([0], [3], 3, -1), "`num_outputs` must be an integer of at least 0, got -1."),
        (([0], [3], 3, 4), "`num_outputs` must be at most `size`, 3, got 4."),
        (
            ([0, 1], [3], 3, 1),
            "`first` and `stop` must have one entry for each row, got shapes (2,) and (1,).",
        ),
        (
            ([2], [1], 3, 1),
            "`first` and `stop` must be ranges within rows of 3 tokens, got [2] and [1].",
        ),
        (
            ([0], [4], 3, 1),
            "`first` and `stop` must be ranges within rows of 3 tokens, got [0] and [4].",
        ),
        (
            ([-1], [2], 3, 1),
            "`first` and `stop` must be ranges within rows of 3 tokens, got [-1] and [2].",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    first, stop, size, num_outputs = arguments
    with pytest.raises(ValueError, match=re.escape(message)):
        PackedLayout(np.array(first), np.array(stop), size, num_outputs)
