"""Steps by hand: one step at a time, several at once, with previous actions, with wrong shapes."""

import re

import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT

from rllib_attention.encoder.inputs import ChunkContext
from tests.encoder.test_encoder import build

STEPS = 12  # beyond the context of 6


def initial(encoder, rows=2):
    return {key: torch.stack([value] * rows) for key, value in encoder.get_initial_state().items()}


def run(encoder, obs, sizes, **columns):
    """Feeds consecutive pieces of an episode, each with the state that the last one gave."""
    state, outputs, start = initial(encoder, len(obs)), [], 0
    for size in sizes:
        piece = slice(start, start + size)
        given = {name: column[:, piece] for name, column in columns.items()}
        out = encoder({Columns.OBS: obs[:, piece], Columns.STATE_IN: state, **given})
        outputs.append(out[ENCODER_OUT])
        state, start = out[Columns.STATE_OUT], start + size
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("sizes", [[1] * STEPS, [5, 1, 6], [STEPS]])
@pytest.mark.parametrize("grad", [True, False])
def test_pieces_of_any_size_give_what_the_whole_episode_gives(sizes, grad):
    encoder, obs = build(), torch.randn(2, STEPS, 3)
    whole = ChunkContext(
        context=torch.zeros(2, 6, 3),
        context_length=torch.tensor([0, 0]),
        chunk_length=torch.tensor([STEPS, STEPS]),
    )
    expected = encoder({Columns.OBS: obs, Columns.STATE_IN: whole.to_state()})[ENCODER_OUT]
    assert (expected.norm(dim=-1) > 0.1).all()  # every step is computed
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(run(encoder, obs, sizes), expected, atol=1e-5, rtol=0)


def test_chunks_of_connectors_have_no_state_after_them():
    """They may be padded, so that what follows their last step is not at their end."""
    encoder = build()
    state = initial(encoder) | {"chunk_length": torch.tensor([3, 5])}
    out = encoder({Columns.OBS: torch.randn(2, 5, 3), Columns.STATE_IN: state})
    assert Columns.STATE_OUT not in out


@pytest.mark.parametrize("sizes", [[1] * STEPS, [5, 1, 6]])
def test_previous_actions_come_from_the_batch(sizes):
    encoder, obs = build(prev_actions=2, prev_rewards=1), torch.randn(2, STEPS, 3)
    columns = {
        "prev_actions": torch.randint(2, (2, STEPS)),
        "prev_rewards": torch.randn(2, STEPS),
    }
    rows = torch.stack([column.float() for column in columns.values()], dim=-1)
    none = torch.from_numpy(encoder.prev_inputs.none)
    rows[:, 0] = none  # nothing came before an episode's first step, whatever the column holds
    whole = ChunkContext(
        context=torch.zeros(2, 6, 3),
        context_length=torch.tensor([0, 0]),
        chunk_length=torch.tensor([STEPS, STEPS]),
        prev=torch.cat((none.expand(2, 7, -1), rows), dim=1),
    )
    expected = encoder({Columns.OBS: obs, Columns.STATE_IN: whole.to_state()})[ENCODER_OUT]
    out = run(encoder, obs, sizes, **columns)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    other = run(encoder, obs, sizes, **columns | {"prev_actions": 1 - columns["prev_actions"]})
    assert not torch.allclose(other, expected, atol=1e-3)


def test_missing_previous_actions_are_an_error_from_the_second_step_on():
    encoder = build(prev_actions=1, prev_rewards=1)
    batch = {Columns.OBS: torch.randn(2, 1, 3), Columns.STATE_IN: initial(encoder)}
    state = encoder(batch)[Columns.STATE_OUT]
    message = "the batch has no prev_actions and no prev_rewards: expected them with shape (2, 1)"
    with pytest.raises(ValueError, match=re.escape(message)):
        encoder({**batch, Columns.STATE_IN: state})
    given = {"prev_actions": torch.zeros(2, 1)}
    with pytest.raises(ValueError, match=re.escape("Fix: add `batch['prev_rewards']` beside")):
        encoder({**batch, **given, Columns.STATE_IN: state})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": torch.zeros(2, 3)}, "`obs` must have shape (B, T, 3)"),
        ({"obs": torch.zeros(3)}, "`obs` must have shape (B, T, 3)"),
        ({"obs": torch.zeros(2, 1, 4)}, "got (2, 1, 4). Fix: give observations a batch and a time"),
        ({"context": torch.zeros(6, 3)}, "`state_in['context']` must have shape (2, 6, 3)"),
        ({"context": torch.zeros(2, 5, 3)}, "got (2, 5, 3)"),
        ({"context_length": torch.zeros(3, 1)}, "`state_in['context_length']` must have shape (2)"),
    ],
)
def test_wrong_shapes(change, message):
    encoder = build()
    obs, state = change.pop("obs", torch.zeros(2, 1, 3)), initial(encoder) | change
    with pytest.raises(ValueError, match=re.escape(message)):
        encoder({Columns.OBS: obs, Columns.STATE_IN: state})
