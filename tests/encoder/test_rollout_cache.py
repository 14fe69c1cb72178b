"""A runner's cache notices new weights, other episodes and batches of another time."""

import pytest
import torch

from tests.encoder.support import Rollout, build


def replace_weight(encoder):
    encoder.embedding.input.weight = torch.nn.Parameter(encoder.embedding.input.weight * 1.5)


def load_state(encoder):
    encoder.load_state_dict({k: v * 1.5 for k, v in encoder.state_dict().items()})


def load_by_assignment(encoder):
    state = {k: v * 1.5 for k, v in encoder.state_dict().items()}
    encoder.load_state_dict(state, assign=True)


def set_data(encoder):
    encoder.embedding.input.weight.data = encoder.embedding.input.weight * 1.5


def optimise(encoder):
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.5)
    sum(p.sum() for p in encoder.parameters()).backward()
    optimiser.step()


@pytest.mark.parametrize(
    "change", [replace_weight, load_state, load_by_assignment, set_data, optimise]
)
def test_cache_is_rebuilt_when_weights_change(change):
    encoder = build().eval()
    rollout = Rollout(encoder, torch.randn(3, 25, 3))
    for step in range(20):
        if step in (2, 13):
            before = rollout.expected() if step else None
            change(encoder)
            assert not torch.allclose(rollout.expected(), before)
        torch.testing.assert_close(rollout.run(), rollout.expected(), atol=1e-5, rtol=0)


def test_a_batch_of_another_time_is_refused():
    rollout = Rollout(build().eval(), torch.randn(2, 5, 3))
    rollout.run()
    with pytest.raises(RuntimeError, match="history stands at steps"):
        rollout.forward(3)


def test_a_slot_of_another_episode_is_not_mistaken_for_it():
    """Random actions skip the forward pass: a slot may pass on unnoticed, at the same step."""
    encoder = build().eval()
    first = Rollout(encoder, torch.randn(2, 9, 3))
    for _ in range(5):
        first.run()
    second = Rollout.__new__(Rollout)
    second.__dict__ |= first.__dict__ | {"rows": torch.randn(2, 9, 3), "step": 0}
    first.memory.slots.collect([], running=True)
    second.open(["2", "3"])
    assert second.slots == first.slots
    for step in range(5):
        second.write(step)
    second.step = 5
    torch.testing.assert_close(second.run(), second.expected(), atol=1e-5, rtol=0)
