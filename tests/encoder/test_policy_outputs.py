"""RLlib's head and nested distribution, with and without a time dimension."""

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
)
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.models.configs import FreeLogStdMLPHeadConfig

from rllib_attention.encoder.policy_outputs import (
    TimeRankFreeLogStdHead,
    TimeRankMultiDistribution,
    time_rank_distribution,
)


@pytest.mark.parametrize("clip", [0.1, 20.0])
def test_the_head_gives_each_step_what_rllib_gives_a_row(clip):
    config = FreeLogStdMLPHeadConfig(
        input_dims=(3,), output_layer_dim=4, log_std_clip_param=clip, clip_log_std=True
    )
    rllibs, ours = config.build(framework="torch"), TimeRankFreeLogStdHead(config)
    ours.load_state_dict(rllibs.state_dict())
    with torch.no_grad():
        for head in (rllibs, ours):
            head.log_std.copy_(torch.tensor([0.5, -3.0]))
    x = torch.randn(6, 3)
    torch.testing.assert_close(ours(x), rllibs(x))
    torch.testing.assert_close(ours(x.view(2, 3, 3)), rllibs(x).view(2, 3, 4))


SPACE = gym.spaces.Dict(
    {
        "box": gym.spaces.Box(-1, 1, (2,), np.float32),
        "discrete": gym.spaces.Discrete(3),
        "both": gym.spaces.Tuple([gym.spaces.Discrete(1), gym.spaces.MultiDiscrete([2, 2])]),
    }
)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_each_step_has_the_probability_that_rllib_gives_its_row(steps):
    torch.manual_seed(0)
    rllibs = Catalog._get_dist_cls_from_action_space(SPACE, framework="torch")
    inputs = torch.randn(4 * steps, rllibs.required_input_dim(SPACE))
    by_row = rllibs.from_logits(inputs)
    actions = by_row.sample()
    chunks = time_rank_distribution(rllibs).from_logits(inputs.view(4, steps, -1))
    in_time = tree.map_structure(lambda x: x.view(4, steps, *x.shape[1:]), actions)
    torch.testing.assert_close(chunks.logp(in_time), by_row.logp(actions).view(4, steps))


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
