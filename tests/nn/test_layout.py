"""Packing, trimming and masks against loops over single tokens."""

import numpy as np
import pytest
import torch

from rllib_attention.nn import BlockedMask, PackedLayout, row_mask

SIZE, OUTPUTS = 9, 4
# Rows that are full, short in front, short behind, without context, of one step, and empty.
FIRST = np.array([0, 3, 0, 5, 8, 5])
STOP = np.array([9, 9, 6, 7, 9, 5])


def layout():
    return PackedLayout(FIRST, STOP, SIZE, OUTPUTS)


def tokens_of(first, stop):
    """(row, position) of each valid token, in packed order."""
    return [(r, p) for r in range(len(first)) for p in range(first[r], stop[r])]


def rows_of_positions():
    row, position = np.indices((len(FIRST), SIZE))
    return torch.from_numpy(np.stack((row, position), axis=-1))


def test_pack_takes_the_valid_tokens_in_order():
    assert list(map(tuple, layout().pack(rows_of_positions()).tolist())) == tokens_of(FIRST, STOP)
    full = PackedLayout(np.zeros(2, int), np.full(2, 3), 3, 3)
    rows = torch.randn(2, 3, 5)
    assert full.pack(rows).data_ptr() == rows.data_ptr()  # nothing is copied


@pytest.mark.parametrize("context", [0, 1, 3, 5, 100])
def test_trimmed_keeps_the_outputs_and_their_context(context):
    kept, index = layout().trimmed(context)
    first = [min(max(f, SIZE - OUTPUTS - context), s) for f, s in zip(FIRST, STOP, strict=True)]
    expected = tokens_of(first, STOP)
    assert list(zip(kept.row.tolist(), kept.position.tolist(), strict=True)) == expected
    if index is None:
        assert expected == tokens_of(FIRST, STOP)
    else:
        packed = tokens_of(FIRST, STOP)
        assert [packed[i] for i in index.tolist()] == expected


def test_unpack_puts_outputs_back():
    kept, _ = layout().trimmed(0)
    tokens = 1.0 + torch.arange(len(kept.row)).unsqueeze(-1)
    out = layout().unpack(tokens)
    expected = torch.zeros(len(FIRST), OUTPUTS, 1)
    outputs = [(r, p) for r, p in tokens_of(FIRST, STOP) if p >= SIZE - OUTPUTS]
    for token, (row, position) in zip(tokens, outputs, strict=True):
        expected[row, position - (SIZE - OUTPUTS)] = token
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("window", [1, 2, 5, 8, 20])
@pytest.mark.parametrize("block", [1, 2, 4, 16])
def test_blocks_show_each_query_its_window_of_its_row(window, block):
    packed = tokens_of(FIRST, STOP)
    blocked = BlockedMask(np.array([row for row, _ in packed]), window, block)
    number = torch.arange(len(packed)).view(-1, 1, 1).float() + 1  # 0 is padding
    keys = blocked.keys(number)[:, 0, :, 0]
    for i, (row, position) in enumerate(packed):
        place = i // block, 0, i % block
        seen = keys[place[0]][blocked.mask.bias[place] == 0].int().tolist()
        wanted = [j + 1 for j in range(i + 1) if packed[j][0] == row and i - j < window]
        assert seen == wanted, (row, position)
        distance = blocked.mask.distance[place[2]][blocked.mask.bias[place] == 0].tolist()
        assert distance == [i + 1 - j for j in seen]
    assert (blocked.mask.bias == 0).any(dim=-1).all()  # padding sees itself: nothing is NaN
    torch.testing.assert_close(blocked.merge(blocked.queries(number)), number)


@pytest.mark.parametrize("window", [1, 3, 20])
def test_row_mask(window):
    valid = torch.tensor([[False, True, True, True, False], [True] * 5])
    mask = row_mask(valid, 3, window)
    for row in range(2):
        for query in range(2, 5):
            seen = [
                key
                for key in range(5)
                if (valid[row, key] and 0 <= query - key < window) or key == query
            ]
            assert (mask.bias[row, 0, query - 2] == 0).nonzero().squeeze(1).tolist() == seen
            assert mask.distance[query - 2, seen].tolist() == [query - key for key in seen]
