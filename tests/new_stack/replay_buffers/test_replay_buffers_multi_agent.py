"""Histories of the multi-agent buffers: each agent's own past, in its own steps."""

import numpy as np
import pytest
from ray.rllib.utils.replay_buffers import (
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.replay_buffers.utils import update_priorities_in_episode_replay_buffer

from rllib_attention.new_stack.replay_buffers import (
    HISTORY,
    HistoryMultiAgentEpisodeReplayBuffer,
    HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
)
from tests.new_stack.replay_buffers.marked_episodes import check_history, make_multi_agent_chunks

BUFFERS = [HistoryMultiAgentEpisodeReplayBuffer, HistoryMultiAgentPrioritizedEpisodeReplayBuffer]
PARENTS = [MultiAgentEpisodeReplayBuffer, MultiAgentPrioritizedEpisodeReplayBuffer]
LENGTHS = [[1], [5], [3, 1, 4, 1, 5], [9, 2, 6, 5], [20, 20]]


def fill(buffer, *, every: int) -> None:
    episodes = [
        make_multi_agent_chunks(i, lengths, lookback=4, done=i % 3 != 2, every=every)
        for i, lengths in enumerate(LENGTHS)
    ]
    for turn in range(max(len(chunks) for chunks in episodes)):
        for chunks in episodes:
            if turn < len(chunks):
                buffer.add(chunks[turn])


def num_steps_of(sampled) -> int:
    return int(sampled.get_observations(1)[1] - sampled.get_observations(0)[1])


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("n_step", [1, 3, (1, 5)])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_each_agent_gets_its_own_past(buffer_class, n_step, every):
    buffer = buffer_class(capacity=1000, history_len=6)
    buffer.rng = np.random.default_rng(0)
    fill(buffer, every=every)
    drawn = set()
    for sampled in buffer.sample(200, n_step=n_step, sample_episodes=True):
        n = num_steps_of(sampled)
        num_history = check_history(sampled, num_steps=n, oldest=0, history_len=6)
        drawn.add((sampled.agent_id, n, num_history))
    assert {agent_id for agent_id, _, _ in drawn} == {"a", "b"}
    assert {n for _, n, _ in drawn} == {1: {1}, 3: {3}, (1, 5): {1, 2, 3, 4}}[n_step]
    assert {0, 6} <= {num_history for _, _, num_history in drawn}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_a_chunk_whose_past_was_evicted_keeps_its_lookback(buffer_class, every, at_once):
    buffer = buffer_class(capacity=20, history_len=6)
    buffer.rng = np.random.default_rng(0)
    first, second, third, fourth = make_multi_agent_chunks(0, [8, 4, 4, 2], lookback=4, every=every)
    buffer.add(first)
    buffer.add(make_multi_agent_chunks(1, [18]))
    assert list(buffer.episode_id_to_index) == ["m1"]
    for chunks in [[second, third, fourth]] if at_once else [[second], [third], [fourth]]:
        buffer.add(chunks)
    assert list(buffer.episode_id_to_index) == ["m0"]
    # The lookback counts env steps, so the slower agent has fewer of its own.
    oldest = {"a": 4, "b": 4 // every}
    lengths = {"a": set(), "b": set()}
    for sampled in buffer.sample(200, n_step=1, sample_episodes=True):
        agent_id = sampled.agent_id
        lengths[agent_id].add(
            check_history(sampled, num_steps=1, oldest=oldest[agent_id], history_len=6)
        )
    assert lengths["a"] == {4, 5, 6}
    assert min(lengths["b"]) == 4 // every


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_eviction_never_mixes_episodes(buffer_class):
    buffer, rng = buffer_class(capacity=60, history_len=6), np.random.default_rng(0)
    for number in range(25):
        lengths = rng.integers(1, 9, size=rng.integers(1, 5)).tolist()
        for chunk in make_multi_agent_chunks(number, lengths, lookback=4, done=number % 3 != 0):
            buffer.add(chunk)
        stored = {
            episode.observations.data[0][0]: episode.observations.data[0][1]
            for multi in buffer.episodes
            for episode in multi.agent_episodes.values()
        }
        for sampled in buffer.sample(16, n_step=1, sample_episodes=True):
            oldest = stored[sampled.get_observations(0)[0]]
            check_history(sampled, num_steps=1, oldest=int(oldest), history_len=6)
    assert buffer.get_num_episodes_evicted() > 10


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize(("buffer_class", "parent"), zip(BUFFERS, PARENTS, strict=True))
def test_samples_are_those_of_the_parent(buffer_class, parent, every):
    samples = []
    for buffer in (buffer_class(capacity=1000, history_len=6), parent(capacity=1000)):
        fill(buffer, every=every)
        buffer.rng = np.random.default_rng(1)
        samples.append(
            buffer.sample(64, n_step=2, modules_to_sample=["pa", "pb"], sample_episodes=True)
        )
    numbers = []
    for ours, theirs in zip(*samples, strict=True):
        assert HISTORY in ours.custom_data
        ours.custom_data.clear()
        states = [ours.get_state(), theirs.get_state()]
        for state in states:  # Episodes of one agent have random IDs.
            del state["id_"]
        np.testing.assert_equal(*states)
        numbers.append(int(ours.get_observations(0)[0]))
    assert len(set(numbers)) > 4


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_one_observation_is_stored_per_agent_step(buffer_class):
    buffer = buffer_class(capacity=1000, history_len=126)
    fill(buffer, every=1)
    buffer.sample(64, n_step=1, sample_episodes=True)
    for episode in buffer.episodes:
        for agent_episode in episode.agent_episodes.values():
            assert agent_episode.observations.len_incl_lookback() == len(agent_episode) + 1
            assert not agent_episode.custom_data
    assert len(buffer) == sum(sum(lengths) for lengths in LENGTHS)


def test_priorities_reach_the_transitions_that_were_sampled():
    buffer = HistoryMultiAgentPrioritizedEpisodeReplayBuffer(capacity=1000, history_len=6)
    fill(buffer, every=1)
    wanted, td_errors = {}, {}
    sampled = buffer.sample(32, n_step=1, beta=0.4, sample_episodes=True)
    for module_id in ("pa", "pb"):
        starts = [tuple(s.get_observations(0)) for s in sampled if s.module_id == module_id]
        wanted[module_id] = starts[5]
        errors = np.array([1e9 if start == starts[5] else 1e-9 for start in starts])
        td_errors[module_id] = {"td_error": errors}
    update_priorities_in_episode_replay_buffer(replay_buffer=buffer, td_errors=td_errors)
    for other in buffer.sample(32, n_step=1, beta=0.4, sample_episodes=True):
        assert tuple(other.get_observations(0)) == wanted[other.module_id]
        check_history(other, num_steps=1, oldest=0, history_len=6)


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_chunks_of_a_new_episode_may_come_at_once(buffer_class):
    buffer = buffer_class(capacity=1000, history_len=6)
    buffer.rng = np.random.default_rng(0)
    buffer.add(make_multi_agent_chunks(0, [5, 3, 4], lookback=2, every=3))
    starts = {
        (sampled.agent_id, sampled.t_started)
        for sampled in buffer.sample(300, n_step=1, sample_episodes=True)
        if check_history(sampled, num_steps=1, oldest=0, history_len=6) is not None
    }
    assert starts == {("a", t) for t in range(12)} | {("b", t) for t in range(4)}


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_synchronized_sampling_is_refused(buffer_class):
    buffer = buffer_class(capacity=1000, history_len=6)
    fill(buffer, every=1)
    with pytest.raises(ValueError, match="`replay_mode` must be 'independent', but got 'sync"):
        buffer.sample(4, n_step=1, replay_mode="synchronized")


class NeverCopied(dict):
    def __deepcopy__(self, memo):
        raise AssertionError("the lookback was copied")


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_lookbacks_of_appended_chunks_are_not_copied(buffer_class):
    buffer = buffer_class(capacity=100, history_len=6)
    first, second = make_multi_agent_chunks(0, [8, 5], lookback=4)
    second.agent_episodes["b"].infos.data[0] = NeverCopied()
    buffer.add(first)
    buffer.add(second)
    assert len(buffer) == 13


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_adding_leaves_the_callers_chunks_alone(buffer_class):
    buffer = buffer_class(capacity=1000, history_len=6)
    first, second = make_multi_agent_chunks(0, [8, 5], lookback=4)
    buffer.add(first)
    buffer.add(second)
    assert second.agent_episodes["a"].observations.lookback == 4
    assert second.env_t_to_agent_t["a"].data == list(range(4, 14))
