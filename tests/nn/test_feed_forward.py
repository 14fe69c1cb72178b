"""The feed-forward part against its formula."""

import re

import pytest
import torch

from rllib_attention.nn import FeedForward


def test_it_is_two_linear_maps_with_a_relu_between():
    torch.manual_seed(0)
    feed_forward, x = FeedForward(3, 5), torch.randn(2, 4, 3)
    out = feed_forward(x)
    expand, contract = feed_forward.expand.weight, feed_forward.contract.weight
    for i, j in ((0, 0), (1, 3)):
        expected = contract @ (expand @ x[i, j]).clamp(min=0)
        torch.testing.assert_close(out[i, j], expected)
    assert sum(p.numel() for p in feed_forward.parameters()) == 2 * 3 * 5  # no biases


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 5), "`dim` must be an integer of at least 1, got 0."),
        ((3, True), "`hidden` must be an integer of at least 1, got True."),
    ],
)
def test_wrong_arguments_are_named(sizes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FeedForward(*sizes)
