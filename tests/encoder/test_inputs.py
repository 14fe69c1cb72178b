"""Typed inputs on their way into `STATE_IN` and back."""

import numpy as np
import pytest
import torch

from rllib_attention.encoder.inputs import (
    ChunkContext,
    RolloutStep,
    nested,
    read_state,
    unnested,
)

STATES = [
    ChunkContext(np.zeros((2, 4, 3)), np.array([4, 1])),
    ChunkContext(torch.zeros(2, 4, 3), torch.tensor([4, 1]), torch.tensor([3, 2])),
    ChunkContext(np.zeros((2, 4, 3)), np.array([4, 1]), np.array([3, 2]), np.ones((2, 9, 1))),
    RolloutStep(np.array([[0, 7], [1, 0]])),
    RolloutStep(torch.tensor([[0, 7]]), torch.ones(1, 5)),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_what_is_written_is_read(state):
    written = state.to_state()
    read = read_state(unnested(nested(written)))
    assert type(read) is type(state)
    for name, value in vars(state).items():
        if value is None:
            assert getattr(read, name) is None
        else:
            np.testing.assert_array_equal(np.asarray(getattr(read, name)), np.asarray(value))


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_the_context_after_a_chunk_is_its_newest_steps(steps):
    rows = torch.arange(2 * (4 + steps)).view(2, -1, 1)
    before = ChunkContext(rows[:, :4], torch.tensor([0, 3]))
    prev = torch.arange(2 * (5 + steps)).view(2, -1, 1)  # one row more, as with depth 2
    after = before.after(rows, prev)
    assert after.context.tolist() == [row[-4:] for row in rows.tolist()]
    assert after.prev.tolist() == [row[-5:] for row in prev.tolist()]
    assert after.context_length.tolist() == [min(4, steps), min(4, 3 + steps)]
    assert after.chunk_length is None
    assert before.after(rows, None).prev is None


def test_every_entry_of_a_single_row_has_a_dimension():
    """RLlib's pieces fail on plain numbers."""
    row = ChunkContext(torch.zeros(4, 3), torch.tensor(0)).to_state()
    assert all(value.dim() > 0 for value in row.values())


@pytest.mark.parametrize("state", [None, {}, {"h": torch.zeros(1)}])
def test_what_is_not_ours(state):
    assert read_state(state) is None
    assert unnested(state) is state
