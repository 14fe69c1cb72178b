"""Packing of time steps into one tensor, and what comes out of it again."""

import numpy as np
import pytest
import torch

from rllib_attention.encoder.packed_window import pack_tokens, packed_size, tags_of, unpack_tokens


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(1,), (3,), (5, 5, 3)])  # bytes: no multiple of a float's 4
@pytest.mark.parametrize("num_features", [0, 2])
@pytest.mark.parametrize("num_tokens", [1, 6])
def test_tokens_come_out_as_they_went_in(dtype, shape, num_features, num_tokens):
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 255, (num_tokens, *shape)).astype(dtype)
    features = rng.normal(size=(num_tokens, num_features)).astype(np.float32)
    tags = rng.integers(0, 2**24, num_tokens)
    packed = pack_tokens(obs, features, tags)
    size = packed_size(int(np.prod(shape)), num_features, as_bytes=dtype == np.uint8)
    assert packed.shape == (num_tokens, size)
    assert packed.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_array_equal(tags_of(packed), tags)
    # Rows of one window each, as a batch has them.
    rows = torch.from_numpy(packed)[:, None]
    for found, expected in zip(
        unpack_tokens(rows, shape, num_features), (obs, features, tags), strict=True
    ):
        np.testing.assert_array_equal(found[:, 0].numpy(), expected)


def test_tokens_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"must have size 6 .*got \(2, 5\).* call it last"):
        unpack_tokens(torch.zeros(2, 5), (3,), 2)
