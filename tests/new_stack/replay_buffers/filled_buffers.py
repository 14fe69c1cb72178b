"""Buffers that hold ragged chunks of many episodes, and what is drawn from them."""

import numpy as np
import pytest
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.replay_buffers.utils import update_priorities_in_episode_replay_buffer

from rllib_attention.new_stack.replay_buffers import (
    HistoryEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
)
from tests.new_stack.replay_buffers.marked_episodes import OldestSteps, check_runs, make_chunks

BUFFERS = [HistoryEpisodeReplayBuffer, HistoryPrioritizedEpisodeReplayBuffer]
PARENTS = [EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer]
LENGTHS = [[1], [5], [3, 1, 4, 1, 5], [9, 2, 6, 5], [1, 1, 1, 1, 1, 1, 1], [20, 20]]
NUM_STEPS = {i: sum(lengths) for i, lengths in enumerate(LENGTHS * 2)}
DONE = {i: length for i, length in NUM_STEPS.items() if i % 3 != 2}
TRANSITIONS = {(i, t) for i, length in NUM_STEPS.items() for t in range(length)}


def filled(buffer_class, *, history_len=6, run_len=1, capacity=1000, lookback=4, to_numpy=True):
    """A buffer with ragged chunks of twelve episodes, added in turns; each third is ongoing."""
    buffer = buffer_class(capacity=capacity, history_len=history_len, run_len=run_len)
    buffer.rng = np.random.default_rng(0)
    known = OldestSteps(buffer)
    episodes = [
        make_chunks(i, lengths, lookback=lookback, done=i in DONE, to_numpy=to_numpy)
        for i, lengths in enumerate(LENGTHS * 2)
    ]
    for turn in range(max(len(chunks) for chunks in episodes)):
        known.add([chunks[turn] for chunks in episodes if turn < len(chunks)])
    return buffer, known


def draw(buffer, size, **kwargs):
    """The transitions of a sample, in their order."""
    [sampled] = buffer.sample(size, sample_episodes=True, **kwargs)
    assert len(sampled) == size
    return check_runs(sampled, history_len=buffer.history_len), sampled


def mark(transition, base=1) -> float:
    """A priority that says whose it is."""
    return base + transition.episode / 64 + transition.t / 4096


def give_priorities(buffer, transitions, base=1):
    """Gives each transition its mark, as a TD error, and looks where it landed."""
    errors = np.array([mark(transition, base) for transition in transitions])
    update_priorities_in_episode_replay_buffer(
        replay_buffer=buffer, td_errors={"default_policy": {"td_error": errors}}
    )
    leaf_of = {triple[:2]: triple[2] for triple in buffer._indices}
    for transition in transitions:
        index = buffer.episode_id_to_index[f"e{transition.episode}"]
        stored = buffer.episodes[index - buffer._num_episodes_evicted]
        leaf = leaf_of[index, transition.t - stored.t_started]
        assert buffer._sum_segment[leaf] == pytest.approx(mark(transition, base) ** buffer._alpha)
