"""A layout is worked out once for a batch, and again for whatever has changed."""

import numpy as np
import pytest
import torch

from rllib_attention.encoder.chunk_layouts import chunk_layout
from rllib_attention.encoder.inputs import ChunkContext


def chunks(context_length=(4, 2, 0), chunk_length=(5, 3, 1)):
    state = {
        "context": torch.zeros(3, 4, 2),
        "context_length": torch.tensor(context_length)[:, None],
        "chunk_length": None if chunk_length is None else torch.tensor(chunk_length),
    }
    return torch.zeros(3, 5, 2), state


def layout(obs, state):
    return chunk_layout(obs, ChunkContext.from_state(state))


def check(found, before, within):
    np.testing.assert_array_equal(found.first, 4 - np.array(before))
    np.testing.assert_array_equal(found.stop, 4 + np.array(within))


def test_encoders_of_one_batch_share_it():
    obs, state = chunks()
    first = layout(obs, state)
    assert layout(obs.clone(), state) is first
    check(first, [4, 2, 0], [5, 3, 1])


@pytest.mark.parametrize("name", ["context_length", "chunk_length"])
@pytest.mark.parametrize("in_place", [True, False])
def test_other_lengths_make_another(name, in_place):
    obs, state = chunks()
    layout(obs, state)
    changed = state[name] if in_place else state[name].clone()
    state[name] = changed.fill_(1)
    lengths = {"context_length": [4, 2, 0], "chunk_length": [5, 3, 1]} | {name: [1, 1, 1]}
    check(layout(obs, state), *lengths.values())


def test_freed_lengths_are_not_mistaken_for_new_ones():
    obs, state = chunks(chunk_length=None)
    for length in range(5):
        state["context_length"] = None  # its memory may be the next one's
        state["context_length"] = torch.tensor([length, 0, 4])[:, None]
        check(layout(obs, state), [length, 0, 4], [5, 5, 5])


def test_longer_chunks_make_another():
    obs, state = chunks(chunk_length=None)
    layout(obs, state)
    check(layout(obs[:, :2], state), [4, 2, 0], [2, 2, 2])


def test_inference_mode():
    with torch.inference_mode():
        obs, state = chunks()
        check(layout(obs, state), [4, 2, 0], [5, 3, 1])
        state["context_length"].fill_(1)
        check(layout(obs, state), [1, 1, 1], [5, 3, 1])
