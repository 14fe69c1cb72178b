"""The article's formulas by hand, and the fused path against the explicit one."""

import math

import pytest
import torch

from rllib_attention.nn import (
    MultiHeadAttention,
    NoPosition,
    RecencyPosition,
    RelativePosition,
    Transformer,
)
from tests.nn.rows import window_mask


def reference(query, key, value, allowed):
    """softmax(QKᵀ/√E) V, one query and head at a time."""
    out = torch.zeros_like(query)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for i in range(query.shape[2]):
                keys = [j for j in range(key.shape[2]) if allowed[b, 0, i, j]]
                scores = [
                    float(query[b, h, i] @ key[b, h, j]) / math.sqrt(query.shape[-1]) for j in keys
                ]
                top = max(scores)
                total = sum(math.exp(s - top) for s in scores)
                for j, s in zip(keys, scores, strict=True):
                    out[b, h, i] += math.exp(s - top) / total * value[b, h, j]
    return out


def test_formulas_by_hand():
    """α = softmax(QKᵀ/√E), C = α V, O = H + C on two steps of one head of size 1."""
    model = Transformer(
        dim=2, num_layers=1, num_heads=1, head_size=1, window=2, ffn_dim=0, position="none"
    )
    block = model.blocks[0]
    block.attention_norm = torch.nn.Identity()
    model.norm = torch.nn.Identity()
    with torch.no_grad():
        # q = h₀, k = h₁, v = h₀ + h₁; C enters both coordinates, the second one doubled.
        block.attention.look.weight.copy_(torch.eye(2))
        block.attention.value.weight.fill_(1.0)
        block.attention.out.weight.copy_(torch.tensor([[1.0], [2.0]]))
    h = torch.tensor([[[1.0, 0.5], [2.0, -1.0]]])
    out = model.forward_rows(h, torch.ones(1, 2, dtype=torch.bool), 2)
    weights = model.record(h[0])
    # Step 1: only itself. Step 2: scores 2·0.5 and 2·(-1), values 1.5 and 1.
    first = math.exp(1.0) / (math.exp(1.0) + math.exp(-2.0))
    context = first * 1.5 + (1 - first) * 1.0
    expected_weights = torch.tensor([[1.0, 0.0], [1 - first, first]])  # by lag
    expected = torch.tensor([[1.0 + 1.5, 0.5 + 3.0], [2.0 + context, -1.0 + 2 * context]])
    torch.testing.assert_close(weights[0, 0], expected_weights)
    torch.testing.assert_close(out[0], expected)


@pytest.mark.parametrize("window", [1, 3, 20])
def test_attend_is_softmax_of_scaled_scores(window):
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, 4, NoPosition())
    query, key, value = torch.randn(3, 2, 2, 6, 4).unbind(0)
    valid = torch.tensor([[True] * 6, [False, False, True, True, True, False]])
    mask = window_mask(valid, 6, window)
    expected = reference(query, key, value, mask.bias == 0)
    torch.testing.assert_close(attention.attend(query, key, value, mask), expected)
    weights = attention.weights(query, key, mask)
    torch.testing.assert_close(weights @ value, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 6))


def test_scores_are_divided_by_the_root_of_the_head_size():
    """Not by the root of the embed dim, as the article's code has it."""
    attention = MultiHeadAttention(dim=64, num_heads=1, head_size=4, position=NoPosition())
    query, key = torch.ones(1, 1, 1, 4), torch.stack((torch.ones(4), torch.zeros(4)))[None, None]
    mask = window_mask(torch.ones(1, 2, dtype=torch.bool), 1, 2)
    weight = attention.weights(query, key, mask)[0, 0, 0]
    torch.testing.assert_close(weight, torch.tensor([2.0, 0.0]).softmax(0))


def test_relative_score_is_the_sum_over_distances():
    """((q + u) k + (q + v) r_d) / √E, pair by pair."""
    torch.manual_seed(0)
    position = RelativePosition(dim=6, num_heads=2, head_size=3, window=4)
    attention = MultiHeadAttention(6, 2, 3, position)
    query, key = torch.randn(2, 1, 2, 5, 3).unbind(0)
    mask = window_mask(torch.ones(1, 5, dtype=torch.bool), 5, 4)
    rows = position.project(position.sinusoids).view(4, 2, 3)
    scores = torch.full((2, 5, 5), float("-inf"))
    for h in range(2):
        for i in range(5):
            for j in range(max(0, i - 3), i + 1):
                content = (query[0, h, i] + position.content_bias[h, 0]) @ key[0, h, j]
                where = (query[0, h, i] + position.position_bias[h, 0]) @ rows[i - j, h]
                scores[h, i, j] = (content + where) / math.sqrt(3)
    torch.testing.assert_close(attention.weights(query, key, mask)[0], scores.softmax(-1))


def test_recency_takes_slope_times_distance_from_each_score():
    torch.manual_seed(0)
    attention = MultiHeadAttention(12, 3, 4, RecencyPosition(num_heads=3, head_size=4))
    plain = MultiHeadAttention(12, 3, 4, NoPosition())
    query, key = torch.randn(2, 1, 3, 6, 4).unbind(0)
    mask = window_mask(torch.ones(1, 6, dtype=torch.bool), 6, 4)
    scores = plain.weights(query, key, mask).log()[0]
    for head, slope in enumerate([1.0, 0.25, 0.0]):
        for i in range(6):
            for j in range(max(0, i - 3), i + 1):
                scores[head, i, j] -= slope * (i - j)
    torch.testing.assert_close(attention.weights(query, key, mask)[0], scores.softmax(-1))


def test_weights_of_one_joined_map_are_read():
    """As they were saved before values had a map of their own."""
    new, old = (MultiHeadAttention(6, 2, 4, NoPosition()) for _ in range(2))
    joined = torch.randn(24, 6)
    new.load_state_dict({"qkv.weight": joined, "out.weight": old.out.weight})
    x = torch.randn(5, 6)
    query, key, value = new.project(x, None)
    expected = (x @ joined.T).view(5, 3, 2, 4).unbind(1)
    for ours, theirs in zip((query, key, value), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_maps_start_as_parts_of_one():
    """Xavier's bound follows from the size of the joined map."""
    attention = MultiHeadAttention(64, 4, 16, NoPosition())
    bound = math.sqrt(6 / (64 + 3 * 64))
    for weight in (attention.look.weight, attention.value.weight):
        assert 0.99 * bound < weight.abs().max() <= bound
