"""Histories of the single-agent buffers, checked against episodes that mark every entry."""

import numpy as np
import pytest
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.replay_buffers.utils import update_priorities_in_episode_replay_buffer

from rllib_attention.new_stack.replay_buffers import (
    HISTORY,
    HistoryEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
)
from tests.new_stack.replay_buffers.marked_episodes import (
    OldestSteps,
    check_history,
    make_chunks,
    observation,
)

BUFFERS = [HistoryEpisodeReplayBuffer, HistoryPrioritizedEpisodeReplayBuffer]
LENGTHS = [[1], [5], [3, 1, 4, 1, 5], [9, 2, 6, 5], [1, 1, 1, 1, 1, 1, 1], [20, 20]]


def filled(buffer_class, *, history_len=6, capacity=1000, lookback=4, to_numpy=True):
    """A buffer with ragged chunks of eight episodes, added in turns; each third is ongoing."""
    buffer = buffer_class(capacity=capacity, history_len=history_len)
    buffer.rng = np.random.default_rng(0)
    known = OldestSteps(buffer)
    episodes = [
        make_chunks(i, lengths, lookback=lookback, done=i % 3 != 2, to_numpy=to_numpy)
        for i, lengths in enumerate(LENGTHS * 2)
    ]
    for turn in range(max(len(chunks) for chunks in episodes)):
        known.add([chunks[turn] for chunks in episodes if turn < len(chunks)])
    return buffer, known


def start_of(sampled) -> tuple[int, int]:
    number, t = np.asarray(sampled.get_observations(0))
    return int(number), int(t)


@pytest.mark.parametrize("to_numpy", [True, False])
@pytest.mark.parametrize("history_len", [0, 3, 126])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_one_step_samples_carry_their_true_past(buffer_class, history_len, to_numpy):
    buffer, known = filled(buffer_class, history_len=history_len, to_numpy=to_numpy)
    assert {episode.is_done for episode in buffer.episodes} == {True, False}
    lengths = [
        check_history(
            sampled,
            num_steps=1,
            oldest=known.oldest[start_of(sampled)[0]],
            history_len=history_len,
        )
        for sampled in buffer.sample(500, n_step=1, sample_episodes=True)
    ]
    # Both clipped and full histories were drawn, those of steps in later chunks among them.
    assert min(lengths) == 0
    assert max(lengths) == min(history_len, 39)


@pytest.mark.parametrize("n_step", [3, (1, 5)])
def test_n_step_samples_carry_the_skipped_steps(n_step):
    buffer, known = filled(HistoryPrioritizedEpisodeReplayBuffer)
    seen = set()
    for sampled in buffer.sample(500, n_step=n_step, beta=0.4, sample_episodes=True):
        n = int(sampled.get_observations(1)[1] - sampled.get_observations(0)[1])
        seen.add(n)
        check_history(
            sampled, num_steps=n, oldest=known.oldest[start_of(sampled)[0]], history_len=6
        )
        past = sampled.custom_data[HISTORY]
        # RLlib's reward is the discounted sum of the raw ones.
        raw = past["rewards"][past["num_history"] :]
        np.testing.assert_allclose(sampled.get_rewards(0), raw @ 0.99 ** np.arange(n))
        np.testing.assert_array_equal(past["obs"][-1], sampled.get_observations(1))
    assert seen == ({3} if n_step == 3 else {1, 2, 3, 4})


def test_n_step_of_the_uniform_buffer_is_clipped_at_the_episodes_end():
    buffer, known = filled(HistoryEpisodeReplayBuffer)
    clipped = 0
    for sampled in buffer.sample(300, n_step=3, sample_episodes=True):
        number, t = start_of(sampled)
        length = sum((LENGTHS * 2)[number])
        check_history(
            sampled, num_steps=min(3, length - t), oldest=known.oldest[number], history_len=6
        )
        clipped += t + 3 > length
    assert clipped > 0


@pytest.mark.parametrize("lookback", [0, 2])
def test_sequences_carry_the_past_of_their_first_step(lookback):
    buffer, known = filled(HistoryEpisodeReplayBuffer)
    lengths = set()
    for sampled in buffer.sample(
        2000, n_step=1, batch_length_T=7, lookback=lookback, sample_episodes=True
    ):
        lengths.add(len(sampled))
        check_history(
            sampled,
            num_steps=len(sampled),
            oldest=known.oldest[start_of(sampled)[0]],
            history_len=6,
        )
    assert {1, 7} <= lengths


@pytest.mark.parametrize("buffer_class", BUFFERS)
@pytest.mark.parametrize("batch_length_t", [None, 4])
def test_a_chunk_whose_past_was_evicted_keeps_its_lookback(buffer_class, batch_length_t):
    if batch_length_t and buffer_class is HistoryPrioritizedEpisodeReplayBuffer:
        pytest.skip("the prioritised buffer samples no sequences")
    buffer = buffer_class(capacity=20, history_len=6)
    known = OldestSteps(buffer)
    first, second, third = make_chunks(0, [8, 5, 4], lookback=4)
    known.add([first, *make_chunks(1, [18])])
    assert list(buffer.episode_id_to_index) == ["e1"]
    known.add([second, third])
    assert known.oldest == {0: 4}, "steps 4 to 7 are known only from the lookback"
    assert len(buffer.episodes[0]) == 9
    lengths = set()
    samples = buffer.sample(200, n_step=1, sample_episodes=True, batch_length_T=batch_length_t)
    for sampled in samples:
        num_steps = len(sampled) if batch_length_t else 1
        lengths.add(check_history(sampled, num_steps=num_steps, oldest=4, history_len=6))
    assert lengths == {4, 5, 6}


def test_a_chunk_whose_past_is_evicted_by_the_same_add_keeps_its_lookback():
    buffer = HistoryEpisodeReplayBuffer(capacity=20, history_len=6)
    first, second = make_chunks(0, [8, 5], lookback=4)
    buffer.add(first)
    # RLlib adds the 18 steps, evicts `first` for them, and only then looks at `second`.
    buffer.add([*make_chunks(1, [18]), second])
    assert buffer.episodes[-1].id_ == "e0"
    assert buffer.episodes[-1].observations.lookback == 4


@pytest.mark.parametrize("to_numpy", [True, False])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_eviction_never_mixes_episodes(buffer_class, to_numpy):
    buffer = buffer_class(capacity=60, history_len=6)
    known, rng = OldestSteps(buffer), np.random.default_rng(0)
    for number in range(40):
        lengths = rng.integers(1, 9, size=rng.integers(1, 5)).tolist()
        known.add(make_chunks(number, lengths, lookback=4, done=number % 3 != 0, to_numpy=to_numpy))
        for sampled in buffer.sample(32, n_step=1, sample_episodes=True):
            oldest = known.oldest[start_of(sampled)[0]]
            check_history(sampled, num_steps=1, oldest=oldest, history_len=6)
    assert buffer.get_num_episodes_evicted() > 20


@pytest.mark.parametrize(
    ("buffer_class", "parent"),
    zip(BUFFERS, [EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer], strict=True),
)
@pytest.mark.parametrize("batch_length_t", [None, 4])
def test_samples_are_those_of_the_parent(buffer_class, parent, batch_length_t):
    buffers = [buffer_class(capacity=80, history_len=6), parent(capacity=80)]
    for i, lengths in enumerate(LENGTHS * 2):
        for chunk in make_chunks(i, lengths, lookback=4, done=i % 3 != 2):
            for buffer in buffers:
                buffer.add(chunk)
    samples = []
    for buffer in buffers:
        buffer.rng = np.random.default_rng(1)
        samples.append(
            buffer.sample(64, n_step=1, batch_length_T=batch_length_t, sample_episodes=True)
        )
    assert buffers[0].get_metrics().keys() == buffers[1].get_metrics().keys()
    for ours, theirs in zip(*samples, strict=True):
        assert HISTORY in ours.custom_data
        ours.custom_data.clear()
        states = [ours.get_state(), theirs.get_state()]
        if parent is PrioritizedEpisodeReplayBuffer:
            for state in states:
                del state["id_"]  # Random in either.
        np.testing.assert_equal(*states)


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_one_observation_is_stored_per_step(buffer_class):
    buffer, _ = filled(buffer_class, history_len=126, lookback=30)
    buffer.sample(200, n_step=1, sample_episodes=True)
    num_steps = 2 * sum(sum(lengths) for lengths in LENGTHS)
    stored = sum(episode.observations.len_incl_lookback() for episode in buffer.episodes)
    assert len(buffer) == num_steps
    assert stored == num_steps + len(buffer.episodes)
    assert all(not episode.custom_data for episode in buffer.episodes)


@pytest.mark.parametrize("to_numpy", [True, False])
def test_adding_leaves_the_callers_chunks_alone(to_numpy):
    buffer = HistoryEpisodeReplayBuffer(capacity=100, history_len=6)
    chunks = make_chunks(0, [8, 5], lookback=4, to_numpy=to_numpy)
    chunks[1].custom_data["seen"] = 1
    buffer.add(chunks[0])
    buffer.add(chunks[1])
    assert chunks[1].observations.lookback == chunks[1].rewards.lookback == 4
    np.testing.assert_array_equal(chunks[1].get_observations(0), observation(0, 8))
    assert buffer.episodes[0].custom_data == {"seen": 1}
    assert list(buffer.episodes[0].extra_model_outputs["logp"].get()) == list(range(0, -13, -1))


class NeverCopied(dict):
    def __deepcopy__(self, memo):
        raise AssertionError("the lookback was copied")


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_lookbacks_of_appended_chunks_are_not_copied(buffer_class):
    buffer = buffer_class(capacity=100, history_len=6)
    first, second = make_chunks(0, [8, 5], lookback=4)
    second.infos.data[0] = NeverCopied()
    buffer.add(first)
    buffer.add(second)
    assert len(buffer) == 13


def test_arrays_are_stored_as_views():
    buffer, _ = filled(HistoryEpisodeReplayBuffer)
    (sampled,) = buffer.sample(1, n_step=1, sample_episodes=True)
    source = buffer.episodes[buffer.episode_id_to_index[sampled.id_]]
    for key, stored in (("obs", source.observations), ("rewards", source.rewards)):
        assert np.shares_memory(sampled.custom_data[HISTORY][key], stored.data)


@pytest.mark.parametrize("to_numpy", [True, False])
def test_nested_observations_keep_structure_and_dtype(to_numpy):
    buffer = HistoryPrioritizedEpisodeReplayBuffer(capacity=100, history_len=2)
    for chunk in make_chunks(7, [5], dict_obs=True, to_numpy=to_numpy):
        buffer.add(chunk)
    for sampled in buffer.sample(20, n_step=2, sample_episodes=True):
        history, t = sampled.custom_data[HISTORY], int(sampled.get_observations(0)["t"][0])
        assert history["obs"]["t"].dtype == np.uint8
        np.testing.assert_array_equal(
            history["obs"]["t"][:, 0], np.arange(max(t - 2, 0), t + 3, dtype=np.uint8)
        )
        np.testing.assert_array_equal(history["obs"]["episode"], 7)


def test_priorities_reach_the_transitions_that_were_sampled():
    buffer, known = filled(HistoryPrioritizedEpisodeReplayBuffer)
    sampled = buffer.sample(32, n_step=1, beta=0.4, sample_episodes=True)
    # Almost all mass on one transition: from then on, it is what is sampled.
    errors = np.full(32, 1e-9)
    errors[5] = 1e9
    wanted = start_of(sampled[5])
    errors[[i for i, other in enumerate(sampled) if start_of(other) == wanted]] = 1e9
    update_priorities_in_episode_replay_buffer(
        replay_buffer=buffer, td_errors={"default_policy": {"td_error": errors}}
    )
    again = buffer.sample(32, n_step=1, beta=0.4, sample_episodes=True)
    assert {start_of(other) for other in again} == {wanted}
    for other in again:
        check_history(other, num_steps=1, oldest=known.oldest[wanted[0]], history_len=6)


def test_batches_without_episodes_stay_as_they_are():
    buffer, _ = filled(HistoryEpisodeReplayBuffer)
    batch = buffer.sample(4, batch_length_T=5, sample_episodes=False)
    assert batch["obs"].shape == (4, 5, 2)


@pytest.mark.parametrize("history_len", [-1, 2.0, True, None])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_history_len_is_checked(buffer_class, history_len):
    with pytest.raises(ValueError, match=f"`history_len` must be an int >= 0.*{history_len}"):
        buffer_class(history_len=history_len)
