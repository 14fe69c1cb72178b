"""Histories of the multi-agent buffers: each agent's own past, in its own steps."""

from collections import Counter

import numpy as np
import pytest
from ray.rllib.utils.replay_buffers import (
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.replay_buffers.utils import update_priorities_in_episode_replay_buffer

from rllib_attention.new_stack.replay_buffers import (
    HistoryMultiAgentEpisodeReplayBuffer,
    HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
)
from tests.new_stack.replay_buffers.marked_episodes import check_runs, make_multi_agent_chunks

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


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("n_step", [1, 3, (1, 5)])
@pytest.mark.parametrize("run_len", [1, {"pa": 5, "pb": 2}])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_each_agent_gets_its_own_past(buffer_class, run_len, n_step, every):
    buffer = buffer_class(capacity=1000, history_len=6, run_len=run_len)
    buffer.rng = np.random.default_rng(0)
    fill(buffer, every=every)
    parts = buffer.sample(100, n_step=n_step, beta=0.4, sample_episodes=True)
    assert {part.module_id for part in parts} == {"pa", "pb"}
    for part in parts:
        transitions = check_runs(part, history_len=6)
        assert len(transitions) == 100
        # Agent "b" is an episode of its own.
        assert {number >= 100 for number, *_ in transitions} == {part.module_id == "pb"}
        expected = {1: {1}, 3: {3}, (1, 5): {1, 2, 3, 4}}[n_step]
        assert {n for _, _, n, _, _ in transitions} == expected
        assert {0, 6} <= set(part.runs.num_past)
        longest = run_len if run_len == 1 else run_len[part.module_id]
        assert max(part.runs.length) == longest


def test_modules_without_a_run_length_get_single_transitions():
    buffer = HistoryMultiAgentEpisodeReplayBuffer(
        capacity=1000, history_len=6, run_len={"pa": 4}, num_shards=2
    )
    buffer.rng = np.random.default_rng(0)
    fill(buffer, every=1)
    parts = buffer.sample(16, modules_to_sample=["pb", "pa"], sample_episodes=True)
    assert [(part.module_id, len(part)) for part in parts] == [
        *[("pb", 8)] * 2,
        *[("pa", 8)] * 2,
    ]
    assert max(parts[0].runs.length) == 1
    assert max(parts[2].runs.length) == 4


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_each_transition_is_equally_likely(buffer_class):
    """Two agents of one module, in whose episodes some agents never act."""
    buffer = buffer_class(capacity=1000, history_len=0, run_len=4)
    buffer.rng = np.random.default_rng(0)
    for number in range(3):
        for chunk in make_multi_agent_chunks(number, [2 + 5 * number], every=2, module="p"):
            buffer.add(chunk)
    [sampled] = buffer.sample(12_000, sample_episodes=True)
    counts = Counter((number, t) for number, t, *_ in check_runs(sampled, history_len=0))
    lengths = {number: 2 + 5 * number for number in range(3)}
    slow = {100 + number: (length + 1) // 2 for number, length in lengths.items()}
    assert set(counts) == {
        (number, t) for number, length in (lengths | slow).items() for t in range(length)
    }
    expected = 12_000 / len(counts)
    assert all(abs(n - expected) < 5 * np.sqrt(2 * expected) for n in counts.values())


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
    for part in buffer.sample(100, sample_episodes=True):
        agent_id = part.module_id[1:]
        number = 0 if agent_id == "a" else 100
        check_runs(part, history_len=6, oldest={number: oldest[agent_id]})
        assert min(part.runs.num_past) == oldest[agent_id]


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_eviction_never_mixes_episodes(buffer_class):
    buffer = buffer_class(capacity=60, history_len=6, run_len=3)
    rng = np.random.default_rng(0)
    for number in range(25):
        lengths = rng.integers(1, 9, size=rng.integers(1, 5)).tolist()
        for chunk in make_multi_agent_chunks(number, lengths, lookback=4, done=number % 3 != 0):
            buffer.add(chunk)
        oldest = {
            int(episode.observations.data[0][0]): int(episode.observations.data[0][1])
            for multi in buffer.episodes
            for episode in multi.agent_episodes.values()
        }
        for part in buffer.sample(16, beta=0.4, sample_episodes=True):
            check_runs(part, history_len=6, oldest=oldest)
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
    parts, theirs = samples
    numbers = set()
    for part, start in zip(parts, (0, 64), strict=True):
        for row, episode in enumerate(theirs[start : start + 64]):
            assert episode.module_id == part.module_id
            at = part.runs.transitions[row]
            expected = np.stack(episode.get_observations())
            np.testing.assert_array_equal(part.runs.obs[[at, at + 2]], expected)
            assert part.columns["rewards"][row] == pytest.approx(episode.get_rewards(0))
            assert part.columns["terminateds"][row] == episode.is_terminated
            weight = episode.get_extra_model_outputs("weights", 0)
            assert part.columns["weights"][row] == pytest.approx(weight)
            numbers.add(int(part.runs.obs[at][0]))
    assert len(numbers) > 4


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


@pytest.mark.parametrize("run_len", [1, 5])
def test_priorities_land_on_the_transitions_that_were_sampled(run_len):
    buffer = HistoryMultiAgentPrioritizedEpisodeReplayBuffer(
        capacity=1000, history_len=6, run_len=run_len, num_shards=2
    )
    fill(buffer, every=2)
    found, td_errors = {}, {}
    for part in buffer.sample(32, beta=0.4, sample_episodes=True):
        found.setdefault(part.module_id, []).extend(check_runs(part, history_len=6))
    for module_id, transitions in found.items():
        errors = [1 + number / 256 + t / 8192 for number, t, *_ in transitions]
        td_errors[module_id] = {"td_error": np.array(errors)}
    update_priorities_in_episode_replay_buffer(replay_buffer=buffer, td_errors=td_errors)
    for module_id, transitions in found.items():
        leaf_of = {entry[:3]: entry[3] for entry in buffer._module_to_indices[module_id]}
        for number, t, *_ in transitions:
            leaf = leaf_of[buffer.episode_id_to_index[f"m{number % 100}"], module_id[1:], t]
            expected = (1 + number / 256 + t / 8192) ** buffer._alpha
            assert buffer._module_to_sum_segment[module_id][leaf] == pytest.approx(expected)


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_chunks_of_a_new_episode_may_come_at_once(buffer_class):
    buffer = buffer_class(capacity=1000, history_len=6)
    buffer.rng = np.random.default_rng(0)
    buffer.add(make_multi_agent_chunks(0, [5, 3, 4], lookback=2, every=3))
    starts = {
        (number, t)
        for part in buffer.sample(300, sample_episodes=True)
        for number, t, *_ in check_runs(part, history_len=6)
    }
    assert starts == {(0, t) for t in range(12)} | {(100, t) for t in range(4)}


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
