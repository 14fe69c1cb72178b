"""Learners."""

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.common import (
    NumpyToTensor,
)
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch, concat_samples

from tests.rllib_contract.pieces import ACTIONS, OBS


@pytest.mark.parametrize("spec", [None, "multi"])
def test_torch_compile_learner_compiles_no_module(monkeypatch, spec):
    compiled = []
    monkeypatch.setattr(TorchRLModule, "compile", lambda self, config: compiled.append(self))
    config = PPOConfig().framework(torch_compile_learner=True)
    if spec == "multi":
        config.multi_agent(policies={"a", "b"})
    spaces = dict.fromkeys(("__env__", "a", "b", "default_policy"), (OBS, ACTIONS))
    learner = config.build_learner(spaces=spaces)
    learner.build()
    assert compiled == [], (
        "`TorchLearner.build` asks of the MultiRLModule whether it is a TorchRLModule, so that no "
        "module is ever compiled; new_stack/learner.py compiles encoders. If that is mended, RLlib "
        "would trace the host's layouts in `forward_train`, too."
    )


def test_arrays_of_objects_stay_on_the_host():
    """new_stack/connectors: lengths and tags are such arrays, as layouts need them."""
    lengths = np.array([3, 4]).astype(object)
    batch = {Columns.STATE_IN: {"lengths": lengths, "context": np.zeros((2, 3), np.float32)}}
    module = (
        PPOConfig().get_multi_rl_module_spec(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)}).build()
    )
    out = NumpyToTensor()(rl_module=module, batch={"default_policy": batch}, episodes=[])
    state = out["default_policy"][Columns.STATE_IN]
    assert torch.is_tensor(state["context"])
    np.testing.assert_array_equal(state["lengths"], lengths)
    minibatch = SampleBatch({**out["default_policy"], Columns.OBS: torch.zeros(2, 1)})
    joined = concat_samples([minibatch[1:2], minibatch[0:1]])
    assert joined[Columns.STATE_IN]["lengths"].tolist() == [4, 3]


def test_a_learner_takes_each_minibatch_through_its_update():
    """new_stack/learner.py ties tags to observations there; it is an extension point."""
    config = PPOConfig()
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)})
    learner.build()
    seen = []
    learner._update = lambda batch: (seen.append(batch), {}, {})
    learner._log_metrics = learner._log_steps_trained_metrics = lambda *args, **kwargs: None
    rows = SampleBatch({Columns.OBS: torch.zeros(4, 2), Columns.REWARDS: torch.zeros(4)})
    batch = MultiAgentBatch({"default_policy": rows}, 4)
    learner.update(batch=batch, timesteps={"num_env_steps_sampled_lifetime": 0})
    assert [list(batches) for batches in seen] == [["default_policy"]]
