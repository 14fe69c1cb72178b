"""What a block adds where its window begins before the episode."""

import pytest
import torch

from rllib_attention.nn.start_embedding import StartEmbedding

DIM, INNER = 4, 6


@pytest.fixture
def start():
    torch.manual_seed(0)
    return StartEmbedding(DIM)


def test_it_is_a_mixture_of_mean_sum_and_vector(start):
    update, share = torch.randn(3, DIM), [0.75, 0.5, 0.0]
    expected = [
        [
            (1 - m * float(start.sum_share[i])) * float(row[i]) + m * float(start.vector[i])
            for i in range(DIM)
        ]
        for row, m in zip(update, share, strict=True)
    ]
    found = start(update, torch.tensor(share)[:, None])
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_a_fresh_one_mixes_each_number_in_its_own_way(start):
    assert ((start.sum_share > 0) & (start.sum_share < 1)).all()
    assert len(set(start.sum_share.tolist())) == DIM


def test_one_map_does_the_same(start):
    weight, inner, missing = torch.randn(INNER, DIM), torch.randn(5, INNER), torch.rand(5, 1)
    found = start.joined(inner, missing) @ start.outward(weight)
    torch.testing.assert_close(found, start(inner @ weight, missing), atol=1e-5, rtol=1e-5)
