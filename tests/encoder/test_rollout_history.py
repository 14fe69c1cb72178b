"""The raw history of running episodes against plain lists."""

import numpy as np
import pytest
from gymnasium import spaces

from rllib_attention.encoder.prev_inputs import PrevInputs
from rllib_attention.encoder.rollout_history import RolloutHistory

CONTEXT = 5


@pytest.mark.parametrize(("num_actions", "num_rewards"), [(0, 0), (1, 0), (3, 1)])
def test_context_and_rows_are_those_of_the_episode(num_actions, num_rewards):
    rng = np.random.default_rng(0)
    prev = PrevInputs(spaces.Discrete(4), num_actions, num_rewards)
    history = RolloutHistory(CONTEXT, prev)
    episodes = {}  # slot → (first step, observations, actions, rewards)
    for step in range(60):
        for slot in range(3):
            if step == 0 or rng.random() < 0.08:
                history.begin(slot, 0)
                episodes[slot] = [], [], []
            obs, actions, rewards = episodes[slot]
            now = len(obs)
            obs.append(rng.normal(size=2).astype(np.float32))
            if now:
                actions.append(int(rng.integers(4)))
                rewards.append(float(rng.normal()))
            row = prev.padded(prev.rows(actions, rewards, now), 1)[0]
            assert history.stands_before(slot, now)
            history.write(slot, now, obs[-1], row)
            expected = prev.sequence(actions, rewards, 0, now + 1)
            at = np.array([slot]), np.array([now])
            if prev.size:
                np.testing.assert_array_equal(history.prev(*at)[0], expected[-1])
            length = min(now, CONTEXT)
            past, rows = history.context(*at, length)
            np.testing.assert_array_equal(past[0], np.array(obs[now - length : now]).reshape(-1, 2))
            if prev.size and length:
                stacked = prev.stack(rows[0])
                np.testing.assert_array_equal(stacked, expected[now - length : now])


def test_a_slot_that_begins_anew_has_a_new_tenant_and_no_past():
    history = RolloutHistory(CONTEXT, PrevInputs(spaces.Discrete(2), 2, 0))
    history.begin(0, 0)
    for step in range(9):
        history.write(0, step, np.ones(2), np.ones(1))
    tenant = int(history.tenants[0])
    history.begin(0, 0)
    assert history.tenants[0] == tenant + 1
    assert history.starts[0] == 0
    assert not history.stands_before(0, 9)
    history.write(0, 0, np.ones(2), history.prev_inputs.none)
    assert (history.prev(np.array([0]), np.array([0])) == -1).all()


def test_fill_is_what_single_steps_write():
    prev = PrevInputs(spaces.Discrete(4), 2, 1)
    actions, rewards = [0, 1, 2, 3, 1, 2], np.arange(6.0)
    obs = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    one, other = RolloutHistory(CONTEXT, prev), RolloutHistory(CONTEXT, prev)
    one.begin(0, 0)
    for step in range(7):
        one.write(0, step, obs[step], prev.padded(prev.rows(actions, rewards, 6)[:step], 1)[0])
    other.fill(0, 3, obs[3:], prev.rows(actions, rewards, 6)[1:])
    at = np.array([0]), np.array([7])
    for mine, its in zip(one.context(*at, 4), other.context(*at, 4), strict=True):
        np.testing.assert_array_equal(mine, its)
