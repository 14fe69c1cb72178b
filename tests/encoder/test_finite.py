"""What is not finite is found, and said where, in arrays and in tensors."""

import re

import numpy as np
import pytest
import torch

from rllib_attention.encoder.finite import check_finite


def check(obs):
    check_finite(obs, "RLModule 'p0'", lambda index: f"step {index + 10}")


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(6,), (6, 2), (6, 4, 4, 3)])
def test_the_first_bad_step_is_named(shape, value, as_tensor):
    obs = np.zeros(shape, np.float32)
    obs.reshape(6, -1)[[3, 5], 0] = value
    message = (
        f"Observations of RLModule 'p0' hold 2 non-finite values (NaN or infinity) of {obs.size}: "
        "expected finite ones, the first that is none lies at step 13. Fix: correct the "
        "environment, or switch this check off by `use_attention(config, check_finite=False)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check(torch.from_numpy(obs) if as_tensor else obs)


def test_infinities_of_opposite_sign_do_not_cancel():
    with pytest.raises(ValueError, match="hold 2 non-finite"):
        check(np.array([[np.inf], [-np.inf]], np.float32))


def test_numbers_beyond_float32_are_infinite_to_a_model():
    with pytest.raises(ValueError, match="hold 1 non-finite"):
        check(np.array([[1.0], [1e300]]))


@pytest.mark.parametrize(
    "obs",
    [
        np.full((5, 4), np.finfo(np.float32).max),  # whose sum is infinite
        np.full((5, 4), 255, np.uint8),
        np.full((5, 4), 2**40),
        np.zeros((0, 4), np.float32),
        torch.full((5, 4), torch.finfo(torch.float32).max),
        torch.ones((5, 4), dtype=torch.bfloat16),
        torch.full((5, 4), 255, dtype=torch.uint8),
    ],
)
def test_finite_numbers_pass(obs):
    check(obs)
