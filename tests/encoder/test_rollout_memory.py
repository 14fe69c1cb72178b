"""What outlives a module that is replaced in mid-episode."""

import pytest
import torch

from rllib_attention.encoder.rollout_memory import RolloutMemory
from tests.encoder.support import Rollout, build


def test_a_new_module_goes_on_in_mid_episode():
    rollout = Rollout(build().eval(), torch.randn(3, 20, 3))
    for _ in range(9):
        rollout.run()
    rollout.encoder = build(gate="gru").eval()
    assert rollout.memory.taken_over([rollout.encoder], "the RLModule") is rollout.memory
    for _ in range(9):
        torch.testing.assert_close(rollout.run(), rollout.expected(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"window": 5}, {"prev_actions": 1}])
def test_another_receptive_field_or_other_inputs_start_anew(options):
    memory = RolloutMemory([build()], "the RLModule")
    other = build(**options)
    fresh = memory.taken_over([other], "the RLModule")
    assert fresh is not memory
    assert fresh.history.context_len == other.config.attention.context_len


def test_all_encoders_read_one_history():
    """Actor and critic with an encoder each: the inputs are kept once."""
    encoders = [build().eval(), build(gate="gru").eval()]
    rollout = Rollout(encoders[0], torch.randn(2, 9, 3))
    rollout.memory.taken_over(encoders, "the RLModule")
    for _ in range(9):
        rollout.write(rollout.step)
        rollout.step += 1
        for rollout.encoder in encoders:
            out = rollout.forward(rollout.step - 1)
            torch.testing.assert_close(out, rollout.expected(), atol=1e-5, rtol=0)
