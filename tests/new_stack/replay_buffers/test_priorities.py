"""Priorities: which transitions are drawn, what they weigh, and where TD errors go."""

import itertools

import numpy as np
import pytest

from rllib_attention.new_stack.replay_buffers import HistoryPrioritizedEpisodeReplayBuffer
from tests.new_stack.replay_buffers.filled_buffers import (
    NUM_STEPS,
    TRANSITIONS,
    draw,
    filled,
    give_priorities,
)


def set_priorities(buffer, rng):
    """Gives every transition a priority of its own and returns them."""
    draw(buffer, 4)  # finds the leaves
    [leaves] = buffer._leaves.values()
    priorities = {}
    for (index, _), known in leaves._by_place.items():
        number = int(buffer.episodes[index].observations.data[0][0])
        for t, leaf in enumerate(known):
            priorities[number, t] = float(rng.uniform(0.1, 2.0))
            buffer._sum_segment[leaf] = buffer._min_segment[leaf] = priorities[number, t]
    assert set(priorities) == TRANSITIONS
    return priorities


def probabilities(priorities, run_len, n_step):
    """P of each transition at a place of a slot: every draw, every offset, one by one."""
    order = [(i, t) for i, t in sorted(TRANSITIONS) if t + n_step <= NUM_STEPS[i]]
    found = dict.fromkeys(order, 0.0)
    for drawn, offset, place in itertools.product(range(len(order)), *[range(run_len)] * 2):
        found[order[(drawn - offset + place) % len(order)]] += priorities[order[drawn]]
    total = sum(found.values())
    return {key: value / total for key, value in found.items()}


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("run_len", [1, 3, 8])
def test_importance_weights_are_those_of_a_count(run_len, n_step):
    buffer, _ = filled(HistoryPrioritizedEpisodeReplayBuffer, run_len=run_len)
    priorities = set_priorities(buffer, np.random.default_rng(1))
    expected = probabilities(priorities, run_len, n_step)
    beta, seen = 0.7, {}
    usable = sum(priorities[key] for key in expected)
    lowest = min(priorities.values()) / usable
    for _ in range(30):
        for number, t, _, _, weight in draw(buffer, 8 * run_len, beta=beta, n_step=n_step)[0]:
            seen[number, t] = weight
            assert weight == pytest.approx((expected[number, t] / lowest) ** -beta)
    assert len(seen) > 0.6 * len(expected)
    assert max(seen.values()) <= 1.0


@pytest.mark.parametrize("run_len", [1, 6])
def test_prioritised_draws_are_as_likely_as_their_weights_say(run_len):
    buffer, _ = filled(HistoryPrioritizedEpisodeReplayBuffer, run_len=run_len, history_len=0)
    priorities = set_priorities(buffer, np.random.default_rng(1))
    expected, counts, num_slots = probabilities(priorities, run_len, 1), {}, 3000
    for number, t, *_ in draw(buffer, run_len * num_slots, beta=0.5)[0]:
        counts[number, t] = counts.get((number, t), 0) + 1
    for key, probability in expected.items():
        mean = probability * run_len * num_slots
        assert abs(counts.get(key, 0) - mean) < 5 * np.sqrt(mean * min(run_len, 2)) + 1


def test_the_rest_of_a_batch_has_weights_of_its_own():
    buffer, _ = filled(HistoryPrioritizedEpisodeReplayBuffer, run_len=6)
    priorities = set_priorities(buffer, np.random.default_rng(1))
    expected = probabilities(priorities, 2, 1)
    lowest = min(priorities.values()) / sum(priorities.values())
    for number, t, _, _, weight in draw(buffer, 8, beta=0.5)[0][6:]:
        assert weight == pytest.approx((expected[number, t] / lowest) ** -0.5)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("run_len", [1, 4, 9])
def test_priorities_land_on_the_transitions_that_were_sampled(run_len, n_step):
    buffer, _ = filled(HistoryPrioritizedEpisodeReplayBuffer, run_len=run_len)
    for _ in range(5):
        give_priorities(buffer, draw(buffer, 64, beta=0.4, n_step=n_step)[0])
    assert buffer._last_sampled_indices == []


def test_what_has_all_priority_is_in_every_slot():
    buffer, _ = filled(HistoryPrioritizedEpisodeReplayBuffer, run_len=4)
    priorities = set_priorities(buffer, np.random.default_rng(0))
    [leaves] = buffer._leaves.values()
    for known in leaves._by_place.values():
        for leaf in known:
            buffer._sum_segment[leaf] = 1e-9
    leaf = leaves._by_place[3, None][10]
    buffer._sum_segment[leaf] = 1e9
    number = int(buffer.episodes[3].observations.data[0][0])
    transitions, _ = draw(buffer, 80, beta=0.4)
    offsets = set()
    for first in range(0, 80, 4):
        slot = [(number, t) for number, t, *_ in transitions[first : first + 4]]
        offsets.add(slot.index((number, 10)))
    assert offsets == {0, 1, 2, 3}
    assert (number, 10) in priorities
