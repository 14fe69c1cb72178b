"""Masks against loops over single tokens."""

import numpy as np
import pytest
import torch

from rllib_attention.nn import BlockedMask, row_mask

# Rows as (context tokens, queries): without context, without queries, of one step, of many.
ROWS = [(5, 4), (0, 9), (2, 0), (0, 1), (7, 1), (3, 12), (0, 2), (1, 1)]


def tokens_of(window):
    """Row, and number in it, of each token; which are queries; what each may see before it."""
    packed = [(row, i) for row, (c, n) in enumerate(ROWS) for i in range(c + n)]
    query = [p for p, (row, i) in enumerate(packed) if i >= ROWS[row][0]]
    before = [min(packed[p][1], window - 1) for p in query]
    return packed, query, before


@pytest.mark.parametrize("window", [1, 2, 5, 8, 20])
@pytest.mark.parametrize("block", [1, 2, 4, 16, 64])
def test_blocks_show_each_query_its_window_of_its_row(window, block):
    packed, query, before = tokens_of(window)
    blocked = BlockedMask(np.array(query), np.array(before), len(packed), block)
    number = torch.arange(len(packed)).view(-1, 1, 1).float()
    keys = blocked.keys(number)[:, 0, :, 0]
    bias, distance = (x[:, 0].flatten(0, 1) for x in (blocked.mask.bias, blocked.mask.distance))
    keys = keys.repeat_interleave(block, dim=0)
    queries = blocked.queries(number).flatten().tolist()
    assert sorted(set(queries)) == query
    for place, asked in enumerate(map(int, queries)):  # the fill of a block included
        row, _ = packed[asked]
        wanted = [j for j in range(asked + 1) if packed[j][0] == row and asked - j < window]
        seen = bias[place] == 0
        assert keys[place][seen].int().tolist() == wanted
        assert distance[place][seen].tolist() == [asked - j for j in wanted]
    assert set(bias.unique().tolist()) <= {0.0, float("-inf")}


@pytest.mark.parametrize("block", [1, 4, 16, 64])
def test_merge_undoes_split(block):
    packed, query, before = tokens_of(5)
    blocked = BlockedMask(np.array(query), np.array(before), len(packed), block)
    tokens = torch.randn(len(packed), 2, 3)
    blocks = blocked.split(blocked.queries(tokens))
    assert blocks.shape == (blocked.num_blocks, 2, block, 3)
    torch.testing.assert_close(blocked.merge(blocks), tokens[query], atol=0, rtol=0)


def test_blocks_stay_small_where_contexts_lie_between_queries():
    """Queries of several rows share a block only while their keys are no more than one row's."""
    window = block = 8
    # Ten rows of seven context steps and one query; ten rows of one query without context.
    lonely, dense = np.arange(10) * 8 + 7, np.arange(10)
    first = BlockedMask(lonely, np.full(10, window - 1), 80, block)
    assert first.num_blocks == 10
    assert first.mask.bias.shape[-1] == 8
    assert BlockedMask(dense, np.zeros(10, int), 10, block).num_blocks == 2


def test_merge_keeps_the_order_of_the_queries():
    packed, query, before = tokens_of(5)
    order = np.random.default_rng(0).permutation(len(query))
    query, before = np.array(query)[order], np.array(before)[order]
    blocked = BlockedMask(query, before, len(packed), 4)
    tokens = torch.randn(len(packed), 2, 3)
    merged = blocked.merge(blocked.split(blocked.queries(tokens)))
    torch.testing.assert_close(merged, tokens[query], atol=0, rtol=0)


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("keys", [[0, 1, 2, 3, 4, 5, 6], [0, 2, 3, 6]])
def test_row_mask(window, stride, keys):
    valid = torch.tensor([[key not in (0, 6) for key in keys], [True] * len(keys)])
    queries = [key for key in keys if key > 1]
    mask = row_mask(valid, torch.tensor(queries), torch.tensor(keys), window, stride)
    for row in range(2):
        for place, query in enumerate(queries):
            reached = [query - k * stride for k in range(window)]
            seen = [i for i, k in enumerate(keys) if (valid[row, i] and k in reached) or k == query]
            assert (mask.bias[row, 0, place] == 0).nonzero().squeeze(1).tolist() == seen
            distance = [(query - keys[i]) // stride for i in seen]
            assert mask.distance[place, seen].tolist() == distance
