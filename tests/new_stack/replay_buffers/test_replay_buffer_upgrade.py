"""Upgrading built buffers in place, and their checkpoints."""

import copy
import pickle
import re

import pytest
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    MultiAgentReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)

import rllib_attention.new_stack.replay_buffers as replay_buffers
from rllib_attention.new_stack.replay_buffers import (
    HistoryEpisodeReplayBuffer,
    HistoryMultiAgentEpisodeReplayBuffer,
    HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
    upgrade_replay_buffer,
)
from tests.new_stack.replay_buffers.marked_episodes import (
    check_runs,
    make_chunks,
    make_multi_agent_chunks,
)

UPGRADES = {
    EpisodeReplayBuffer: HistoryEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer: HistoryPrioritizedEpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer: HistoryMultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer: HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
}


def chunks_for(buffer_class):
    if issubclass(buffer_class, MultiAgentEpisodeReplayBuffer):
        return make_multi_agent_chunks(0, [5, 3, 4], lookback=2, done=False)
    return make_chunks(0, [5, 3, 4], lookback=2, done=False)


def check_samples(buffer, *, history_len):
    for sampled in buffer.sample(60, beta=0.4, sample_episodes=True):
        check_runs(sampled, history_len=history_len)


@pytest.mark.parametrize(("stock", "upgraded"), UPGRADES.items())
def test_upgrade_keeps_contents_and_is_idempotent(stock, upgraded):
    buffer = stock(capacity=100)
    first, second, third = chunks_for(stock)
    buffer.add(first)
    assert upgrade_replay_buffer(buffer, history_len=3) is buffer
    assert type(buffer) is upgraded
    assert len(buffer) == 5
    buffer.add(second)
    check_samples(buffer, history_len=3)
    assert upgrade_replay_buffer(buffer, history_len=7, run_len=3, num_shards=2) is buffer
    assert type(buffer) is upgraded
    assert [len(part) for part in buffer.sample(8, sample_episodes=True)][:2] == [4, 4]
    buffer.add(third)
    check_samples(buffer, history_len=7)
    # An upgrade changes one buffer, not RLlib.
    assert type(stock(capacity=100)) is stock


class UsersBuffer(EpisodeReplayBuffer):
    pass


@pytest.mark.parametrize("buffer_class", [UsersBuffer, MultiAgentReplayBuffer, type(None)])
def test_other_buffers_are_refused(buffer_class):
    message = (
        f"of type {buffer_class.__name__}. Accepted are RLlib's own EpisodeReplayBuffer, "
        "PrioritizedEpisodeReplayBuffer, MultiAgentEpisodeReplayBuffer, "
        "MultiAgentPrioritizedEpisodeReplayBuffer (not subclasses of them). Call "
        '`config.training(replay_buffer_config={"type": "EpisodeReplayBuffer"})`.'
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        upgrade_replay_buffer(buffer_class(), history_len=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history_len": -1}, "`history_len` must be an int >= 0, but got -1"),
        ({"history_len": 1, "run_len": 0}, "`run_len` must be an int >= 1, but got 0"),
    ],
)
def test_wrong_options_leave_the_buffer_as_it_is(options, message):
    buffer = EpisodeReplayBuffer()
    with pytest.raises(ValueError, match=message):
        upgrade_replay_buffer(buffer, **options)
    assert type(buffer) is EpisodeReplayBuffer


@pytest.mark.parametrize(("stock", "upgraded"), UPGRADES.items())
def test_state_moves_between_stock_and_upgraded_buffers(stock, upgraded):
    first, second, third = chunks_for(stock)
    stored = stock(capacity=100)
    stored.add(first)
    middle = upgraded(capacity=100, history_len=4)
    middle.set_state(copy.deepcopy(stored.get_state()))
    middle.add(second)
    check_samples(middle, history_len=4)
    restored = upgraded(capacity=100, history_len=9)
    restored.set_state(copy.deepcopy(middle.get_state()))
    restored.add(third)
    assert len(restored) == 12
    check_samples(restored, history_len=9)
    assert set(restored.get_state()) == set(stock().get_state())
    # Evict everything that was restored.
    make = make_multi_agent_chunks if "MultiAgent" in stock.__name__ else make_chunks
    restored.add(make(1, [98]))
    assert restored.get_num_episodes() == 1
    check_samples(restored, history_len=9)


@pytest.mark.parametrize("upgraded", list(UPGRADES.values())[:3])
def test_buffers_survive_pickling(upgraded):
    # RLlib's multi-agent prioritised buffer holds lambdas and cannot be pickled.
    buffer = upgraded(capacity=100, history_len=4)
    buffer.add(chunks_for(upgraded))
    check_samples(pickle.loads(pickle.dumps(buffer)), history_len=4)


@pytest.mark.parametrize("name", replay_buffers.__all__)
def test_public_names_import(name):
    assert getattr(replay_buffers, name)
