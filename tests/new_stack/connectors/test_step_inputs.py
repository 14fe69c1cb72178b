"""Inputs taken out of episodes, against the episode's own lists."""

import re

import numpy as np
import pytest

from rllib_attention import AttentionConfig
from rllib_attention.encoder.rollout_history import RolloutHistory
from rllib_attention.new_stack.connectors.step_inputs import (
    CARRIED_CONTEXT,
    carry_context,
    fragment_inputs,
    newest_row,
    stretches,
    training_inputs,
)
from tests.new_stack.connectors.fragments import ATTENTION, LENGTH, fragment, module, played


def expected(prev, start, past, num_steps):
    obs, actions, rewards = played()
    stacked = prev.sequence(actions, rewards, 0, LENGTH + 1)
    steps = slice(start - past, start + num_steps)
    return np.array(obs[steps]), stacked[steps]


@pytest.mark.parametrize("finalized", [False, True])
@pytest.mark.parametrize(("start", "past"), [(0, 0), (4, 4), (20, 6)])
def test_the_past_comes_from_the_lookback(start, past, finalized):
    """As far as the encoder sees, with actions that reach back further still."""
    known, episode = module(), fragment(start, start + 7, min(start, ATTENTION.history_len))
    if finalized:
        episode.to_numpy()
    inputs = fragment_inputs(episode, known, 7)
    obs, stacked = expected(known.prev_inputs, start, past, 7)
    assert inputs.num_past == past
    np.testing.assert_array_equal(inputs.obs, obs)
    np.testing.assert_array_equal(known.prev_inputs.stack(inputs.rows), stacked)


@pytest.mark.parametrize("lookback", [0, 1, 3])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_a_fragment_carries_what_its_lookback_does_not_hold(lookback, num_steps):
    known, start = module(), 20
    history = RolloutHistory(ATTENTION.context_len, known.prev_inputs)
    obs, actions, rewards = played()
    rows = known.prev_inputs.rows(actions, rewards, LENGTH)
    history.begin(0, 0)
    for step in range(start + 1):
        history.write(0, step, obs[step], rows[step - 1] if step else known.prev_inputs.none)
    episode = fragment(start, start + num_steps, lookback)
    carry_context(episode, known, history, 0)
    inputs = fragment_inputs(episode, known, num_steps)
    true_obs, stacked = expected(known.prev_inputs, start, 6, num_steps)
    assert inputs.num_past == 6
    np.testing.assert_array_equal(inputs.obs, true_obs)
    np.testing.assert_array_equal(known.prev_inputs.stack(inputs.rows), stacked)


def test_nothing_is_carried_where_the_lookback_holds_it_all():
    known = module()
    history = RolloutHistory(ATTENTION.context_len, known.prev_inputs)
    history.begin(0, 0)
    episode = fragment(20, 21, ATTENTION.history_len)
    carry_context(episode, known, history, 0)
    assert CARRIED_CONTEXT not in episode.custom_data


def test_a_carried_context_is_that_of_its_own_fragment_only():
    known, episode = module(), fragment(20, 25, 2)
    wrong = {"stop": 12, "obs": np.full((6, 2), 9.0), "rows": np.zeros((9, 2))}
    episode.custom_data[CARRIED_CONTEXT] = wrong
    assert fragment_inputs(episode, known, 5).num_past == 2


@pytest.mark.parametrize(("start", "needed"), [(0, 0), (4, 4), (20, 6)])
def test_training_needs_the_past_that_was_seen(start, needed):
    """Less would be another function than the one that acted, without a word."""
    known = module()
    assert training_inputs(fragment(start, start + 3, needed), known, 3).num_past == needed
    if needed:
        message = (
            f"A fragment that starts at step {start} of its episode must hold the {needed} steps "
            f"before it to be trained on, since attention saw them, got {needed - 1}. Use "
            "`config.env_runners(episode_lookback_horizon=9)`"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            training_inputs(fragment(start, start + 3, needed - 1), known, 3)


@pytest.mark.parametrize(("start", "stop", "lookback"), [(0, 0, 0), (0, 3, 0), (8, 8, 4)])
def test_the_newest_row_is_what_happened_last(start, stop, lookback):
    prev = module().prev_inputs
    _, actions, rewards = played()
    rows = prev.rows(actions, rewards, LENGTH)
    row = newest_row(fragment(start, stop, lookback), prev)
    np.testing.assert_array_equal(row, rows[stop - 1] if stop else prev.none)


def test_padding_keeps_steps_and_rows_together():
    known = module()
    inputs = fragment_inputs(fragment(20, 27, 9), known, 7)
    for front, back in ((2, 3), (9, 0)):
        padded = inputs.padded(front, back)
        assert len(padded.obs) == front + 7 + back
        real = slice(max(0, front - 6), front + 7)
        stacked = known.prev_inputs.stack(padded.rows)[real]
        kept = known.prev_inputs.stack(inputs.rows)[-len(stacked) :]
        np.testing.assert_array_equal(stacked, kept)
        np.testing.assert_array_equal(padded.obs[real], inputs.obs[-len(stacked) :])


def test_stretches_are_slices():
    array, first = np.arange(20).reshape(10, 2), np.array([0, 3, 6])
    out = stretches(array, first, 4)
    np.testing.assert_array_equal(out, np.stack([array[i : i + 4] for i in first]))
    assert stretches(array, first, 0).shape == (3, 0, 2)


@pytest.mark.parametrize("step", [17, 20, 14])
def test_observations_for_training_are_finite(step):
    """Those of the lookback included, since attention sees them."""
    episode = fragment(17, 26, 9)
    episode.observations.data[step - 17 + 9][1] = np.nan
    message = f"Observations of RLModule 'p0' hold 1 non-finite .* lies at step {step} of episode"
    with pytest.raises(ValueError, match=message):
        training_inputs(episode, module(), 9)
    unchecked = AttentionConfig.from_dict(module().attention.to_dict() | {"check_finite": False})
    training_inputs(episode, module(unchecked), 9)
