"""A scheme that adds nothing."""

import numpy as np
import pytest
import torch

from rllib_attention.nn import NoPosition


def test_no_position_changes_nothing():
    position, x = NoPosition(), torch.randn(5, 2, 6)
    assert position.angles(np.arange(5), torch.device("cpu")) is None
    assert position.rotate(x, None) is x
    query, where = position.split_query(x)
    assert query is x
    assert where is None
    assert position.rows() is None
    assert position.fixed_bias(torch.zeros(1, 1)) is None
    before = x.clone()
    position.rotate_(x, None)
    assert torch.equal(x, before)
    with pytest.raises(NotImplementedError, match="NoPosition has no position bias"):
        position.bias(x, torch.zeros(1, 1), None)
