"""Runs of the single-agent buffers, checked against episodes that mark every entry."""

import numpy as np
import pytest

from rllib_attention.new_stack.replay_buffers import (
    HistoryEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
)
from tests.new_stack.replay_buffers.filled_buffers import (
    BUFFERS,
    DONE,
    LENGTHS,
    NUM_STEPS,
    PARENTS,
    TRANSITIONS,
    draw,
    filled,
    give_priorities,
)
from tests.new_stack.replay_buffers.marked_episodes import (
    OldestSteps,
    check_ends,
    check_runs,
    make_chunks,
    observation,
)


@pytest.mark.parametrize("to_numpy", [True, False])
@pytest.mark.parametrize("history_len", [3, 126])
@pytest.mark.parametrize("run_len", [1, 4, 50])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_runs_carry_their_true_past(buffer_class, run_len, history_len, to_numpy):
    buffer, _ = filled(buffer_class, history_len=history_len, run_len=run_len, to_numpy=to_numpy)
    assert {episode.is_done for episode in buffer.episodes} == {True, False}
    transitions, sampled = draw(buffer, 251)
    assert check_ends(sampled, DONE) > 1
    num_past = [past for *_, past, _ in transitions]
    # Both clipped and full histories were drawn, those of steps in later chunks among them.
    assert min(num_past) == 0
    assert max(sampled.runs.num_past) >= min(history_len, 20)
    assert set(sampled.runs.length) <= set(range(1, run_len + 1))
    assert max(sampled.runs.length) >= min(run_len, 20)


@pytest.mark.parametrize("run_len", [1, 4])
@pytest.mark.parametrize("n_step", [3, (1, 5)])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_n_step_runs_carry_the_skipped_steps(buffer_class, n_step, run_len):
    buffer, _ = filled(buffer_class, run_len=run_len)
    transitions, sampled = draw(buffer, 400, n_step=n_step, gamma=0.99)
    assert check_ends(sampled, DONE) > 1
    assert {n for _, _, n, _, _ in transitions} == ({3} if n_step == 3 else {1, 2, 3, 4})
    assert all(t + n <= NUM_STEPS[number] for number, t, n, _, _ in transitions)


def test_no_episode_of_n_steps_is_an_error():
    buffer = HistoryEpisodeReplayBuffer(history_len=2)
    buffer.add(make_chunks(0, [3]))
    with pytest.raises(ValueError, match=r"No stored episode is as long as `n_step` 5"):
        draw(buffer, 4, n_step=5)


@pytest.mark.parametrize("run_len", [1, 2, 5, 30])
def test_each_transition_is_equally_likely_at_each_place(run_len):
    buffer, _ = filled(HistoryEpisodeReplayBuffer, run_len=run_len, history_len=0)
    size, num_samples, total = 30, 500, len(TRANSITIONS)
    places = {}
    for _ in range(num_samples):
        for place, (number, t, *_) in enumerate(draw(buffer, size)[0]):
            places.setdefault((number, t), np.zeros(size))[place] += 1
    assert set(places) == TRANSITIONS
    counts = np.array(list(places.values()))
    # One transition comes at most once for each draw, and draws are independent.
    expected = num_samples / total
    assert abs(counts - expected).max() < 6 * np.sqrt(expected)
    blocks = counts.sum(1)
    assert abs(blocks - expected * size).max() < 5 * np.sqrt(expected * size * min(run_len, 2))


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_a_chunk_whose_past_was_evicted_keeps_its_lookback(buffer_class):
    buffer = buffer_class(capacity=20, history_len=6, run_len=3)
    known = OldestSteps(buffer)
    first, second, third = make_chunks(0, [8, 5, 4], lookback=4)
    known.add([first, *make_chunks(1, [18])])
    assert list(buffer.episode_id_to_index) == ["e1"]
    known.add([second, third])
    assert known.oldest == {0: 4}, "steps 4 to 7 are known only from the lookback"
    assert len(buffer.episodes[0]) == 9
    [sampled] = buffer.sample(200, sample_episodes=True)
    check_runs(sampled, history_len=6, oldest=known.oldest)
    assert set(sampled.runs.num_past) == {4, 5, 6}


def test_a_chunk_whose_past_is_evicted_by_the_same_add_keeps_its_lookback():
    buffer = HistoryEpisodeReplayBuffer(capacity=20, history_len=6)
    first, second = make_chunks(0, [8, 5], lookback=4)
    buffer.add(first)
    # RLlib adds the 18 steps, evicts `first` for them, and only then looks at `second`.
    buffer.add([*make_chunks(1, [18]), second])
    assert buffer.episodes[-1].id_ == "e0"
    assert buffer.episodes[-1].observations.lookback == 4


@pytest.mark.parametrize("to_numpy", [True, False])
@pytest.mark.parametrize("run_len", [1, 5])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_eviction_never_mixes_episodes(buffer_class, run_len, to_numpy):
    buffer = buffer_class(capacity=60, history_len=6, run_len=run_len)
    known, rng = OldestSteps(buffer), np.random.default_rng(0)
    for number in range(40):
        lengths = rng.integers(1, 9, size=rng.integers(1, 5)).tolist()
        known.add(make_chunks(number, lengths, lookback=4, done=number % 3 != 0, to_numpy=to_numpy))
        [sampled] = buffer.sample(32, beta=0.4, sample_episodes=True)
        transitions = check_runs(sampled, history_len=6, oldest=known.oldest)
        if buffer_class is HistoryPrioritizedEpisodeReplayBuffer:
            give_priorities(buffer, transitions, base=1 + number)
    assert buffer.get_num_episodes_evicted() > 20


@pytest.mark.parametrize(("buffer_class", "parent"), zip(BUFFERS, PARENTS, strict=True))
def test_runs_of_one_are_the_samples_of_the_parent(buffer_class, parent):
    buffers = [buffer_class(capacity=80, history_len=6), parent(capacity=80)]
    for i, lengths in enumerate(LENGTHS * 2):
        for chunk in make_chunks(i, lengths, lookback=4, done=i in DONE):
            for buffer in buffers:
                buffer.add(chunk)
    samples = []
    for buffer in buffers:
        buffer.rng = np.random.default_rng(1)
        samples.append(buffer.sample(64, n_step=1, beta=0.4, sample_episodes=True))
    assert buffers[0].get_metrics().keys() == buffers[1].get_metrics().keys()
    [ours], theirs = samples
    for row, episode in enumerate(theirs):
        at = ours.runs.transitions[row]
        np.testing.assert_array_equal(ours.runs.obs[at : at + 2], episode.get_observations())
        assert ours.columns["actions"][row] == episode.get_actions(0)
        assert ours.columns["rewards"][row] == episode.get_rewards(0)
        assert ours.columns["terminateds"][row] == episode.is_terminated
        for key in ("weights", "n_step"):
            expected = episode.get_extra_model_outputs(key, 0)
            assert ours.columns[key][row] == pytest.approx(expected)


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_one_observation_is_stored_per_step(buffer_class):
    buffer, _ = filled(buffer_class, history_len=126, lookback=30)
    draw(buffer, 200)
    num_steps = sum(NUM_STEPS.values())
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


def test_samples_do_not_alias_what_is_stored():
    buffer, _ = filled(HistoryEpisodeReplayBuffer, run_len=4)
    before = [np.array(episode.rewards.data) for episode in buffer.episodes]
    for _ in range(20):
        _, sampled = draw(buffer, 8)
        sampled.runs.rewards[:] = sampled.columns["rewards"][:] = -1.0
    for episode, rewards in zip(buffer.episodes, before, strict=True):
        np.testing.assert_array_equal(episode.rewards.data, rewards)


@pytest.mark.parametrize("to_numpy", [True, False])
def test_nested_observations_keep_structure_and_dtype(to_numpy):
    buffer = HistoryPrioritizedEpisodeReplayBuffer(capacity=100, history_len=2, run_len=2)
    for chunk in make_chunks(7, [5], dict_obs=True, to_numpy=to_numpy):
        buffer.add(chunk)
    [sampled] = buffer.sample(20, n_step=2, sample_episodes=True)
    runs = sampled.runs
    assert runs.obs["t"].dtype == np.uint8
    np.testing.assert_array_equal(runs.obs["t"][runs.transitions, 0], sampled.get_actions())
    np.testing.assert_array_equal(runs.obs["episode"], 7)


@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_each_learner_gets_an_equal_part_and_no_run_is_split(buffer_class):
    buffer, _ = filled(buffer_class, run_len=4)
    buffer.set_runs(6, 4, num_shards=3)
    parts = buffer.sample(30, beta=0.4, sample_episodes=True)
    assert [len(part) for part in parts] == [10, 10, 10]
    transitions = [found for part in parts for found in check_runs(part, history_len=6)]
    if buffer_class is HistoryPrioritizedEpisodeReplayBuffer:
        give_priorities(buffer, transitions)
    with pytest.raises(ValueError, match=r"a multiple of the 3 learners .* got 32\. Use `config"):
        buffer.sample(32, sample_episodes=True)
    with pytest.raises(ValueError, match=r"cannot be split between learners"):
        parts[0][:5]
    with pytest.raises(ValueError, match=r"no observations of their own"):
        parts[0].get_observations()


def test_batches_without_episodes_stay_as_they_are():
    buffer, _ = filled(HistoryEpisodeReplayBuffer)
    batch = buffer.sample(4, batch_length_T=5, sample_episodes=False)
    assert batch["obs"].shape == (4, 5, 2)


@pytest.mark.parametrize(
    "option",
    [
        {"batch_length_T": 4},
        {"min_batch_length_T": 2},
        {"include_infos": True},
        {"include_extra_model_outputs": True},
    ],
)
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_options_that_runs_do_not_have_are_refused(buffer_class, option):
    buffer, _ = filled(buffer_class)
    with pytest.raises(ValueError, match=f"`{next(iter(option))}` must not be set, but got"):
        buffer.sample(4, sample_episodes=True, **option)


@pytest.mark.parametrize("history_len", [-1, 2.0, True, None])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_history_len_is_checked(buffer_class, history_len):
    with pytest.raises(ValueError, match=f"`history_len` must be an int >= 0.*{history_len}"):
        buffer_class(history_len=history_len)


@pytest.mark.parametrize("run_len", [0, 2.0, True, None, {"p": 0}])
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_run_len_is_checked(buffer_class, run_len):
    with pytest.raises(ValueError, match=r"`run_len` must be an int >= 1, but got .*max_seq_len"):
        buffer_class(history_len=1, run_len=run_len)
