"""Random contents of replay buffers: every sampled run is the true past of its transitions."""

import copy

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer

from rllib_attention.new_stack.replay_buffers import (
    HistoryEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
)
from tests.new_stack.replay_buffers.marked_episodes import make_chunks, reward

EPISODES = st.lists(
    st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans()),
    min_size=1,
    max_size=6,
)


def in_turn(chunks):
    """Yields chunks as vector environments bring them: one of each episode, then the next."""
    for turn in range(max(map(len, chunks))):
        yield from (own[turn] for own in chunks if turn < len(own))


def rllibs_buffer_takes(chunks, capacity, prioritized) -> bool:
    """Whether RLlib's own can: it cannot if an episode that still grows is too long for it."""
    kind = PrioritizedEpisodeReplayBuffer if prioritized else EpisodeReplayBuffer
    buffer = kind(capacity=capacity)
    try:
        for chunk in in_turn(chunks):
            buffer.add(copy.deepcopy(chunk))
    except IndexError:
        return False
    return True


@given(
    episodes=EPISODES,
    history_len=st.integers(0, 12),
    run_len=st.integers(1, 6),
    n_step=st.integers(1, 3),
    capacity=st.integers(5, 200),
    prioritized=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_runs_are_the_true_past(
    episodes, history_len, run_len, n_step, capacity, prioritized, seed
):
    kind = HistoryPrioritizedEpisodeReplayBuffer if prioritized else HistoryEpisodeReplayBuffer
    buffer = kind(capacity=capacity, history_len=history_len, run_len=run_len)
    buffer.rng = np.random.default_rng(seed)
    chunks = [
        make_chunks(number, lengths, lookback=history_len, done=done)
        for number, (lengths, done) in enumerate(episodes)
    ]
    assume(rllibs_buffer_takes(chunks, capacity, prioritized))
    for chunk in in_turn(chunks):
        buffer.add(chunk)
    if max(len(episode) for episode in buffer.episodes) < n_step:
        return
    [sampled] = buffer.sample(num_items=13, n_step=n_step, gamma=0.5, sample_episodes=True)
    runs = sampled.runs
    assert runs.length.sum() == 13
    assert (runs.length <= run_len).all()
    for start, size, past in zip(runs.start, runs.size, runs.num_past, strict=True):
        episode, steps = runs.obs[start : start + size].T
        assert (episode == episode[0]).all(), "a run lies in one episode"
        np.testing.assert_array_equal(steps, steps[0] + np.arange(size))
        # As far back as attention looks, or to the episode's first step.
        assert past == min(history_len, steps[0] + past)
    for i, at in enumerate(runs.transitions):
        t = runs.obs[at, 1]
        assert sampled.columns["actions"][i] == t
        expected = sum(0.5**ahead * reward(t + ahead) for ahead in range(n_step))
        assert sampled.columns["rewards"][i] == expected
