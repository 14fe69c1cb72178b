"""Nested action distributions that RLlib's own cannot handle."""

import pytest
import torch
import tree
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
)

from rllib_attention.encoder.policy_outputs import TimeRankMultiDistribution


@pytest.mark.parametrize("rows", [(3,), (3, 5)])
@pytest.mark.parametrize("first", ["a", "b", "c"])
def test_the_most_probable_actions_have_a_logp_for_each_row(rows, first):
    torch.manual_seed(0)
    logits = torch.randn(*rows, 4)
    kinds = {
        "a": TorchCategorical(logits=logits),
        "b": TorchDiagGaussian(loc=torch.randn(*rows, 2), scale=torch.ones(*rows, 2)),
        "c": TorchMultiCategorical([TorchCategorical(logits=torch.randn(*rows, 3))] * 2),
    }
    # `tree` sorts the keys.
    parts = {("_" if name == first else "") + name: kind for name, kind in kinds.items()}
    certain = TimeRankMultiDistribution(parts).to_deterministic()
    actions = certain.sample()
    assert torch.equal(tree.flatten(certain.logp(actions))[0], torch.zeros(rows))
    assert torch.equal(actions["_a" if first == "a" else "a"], logits.argmax(-1))
