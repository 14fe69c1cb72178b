"""Replay buffers."""

import numpy as np
import pytest
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)

from tests.rllib_contract.pieces import episode

BUFFERS = [
    EpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
]


@pytest.mark.parametrize("buffer_class", BUFFERS[:2], ids=lambda cls: cls.__name__)
def test_indices_are_in_order_of_arrival_and_lose_what_is_evicted(buffer_class):
    buffer = buffer_class(capacity=8)
    for first in (0, 100, 200):
        buffer.add(episode(4, first=first, id_=str(first)))
    found = [tuple(index[:2]) for index in buffer._indices]
    assert found == [(number, step) for number in (1, 2) for step in range(4)], (
        "replay_buffers/priorities.py follows additions at the end and evictions at the start; "
        "episodes count from the first ever stored, steps from the start of what is stored."
    )


def test_multi_agent_indices_are_kept_for_each_module():
    buffer = MultiAgentPrioritizedEpisodeReplayBuffer(capacity=20)
    buffer.add(
        MultiAgentEpisode(
            observations=[{"a": 0, "b": 5}, {"a": 1}, {"a": 2, "b": 6}],
            actions=[{"a": 0, "b": 0}, {"a": 0}],
            rewards=[{"a": 0.0, "b": 0.0}, {"a": 0.0}],
            terminateds={"__all__": True, "a": True, "b": True},
            agent_module_ids={"a": "m", "b": "n"},
            len_lookback_buffer=0,
        )
    )
    found = {
        key: [index[:3] for index in value] for key, value in buffer._module_to_indices.items()
    }
    assert found == {"m": [(0, "a", 0), (0, "a", 1)], "n": [(0, "b", 0)]}
    assert set(buffer.get_module_ids()) == {"m", "n"}
    for module_id, indices in found.items():
        positions = buffer._module_to_tree_idx_to_sample_idx[module_id]
        assert [positions[index[-1]] for index in indices] == list(range(len(indices)))
        assert buffer._module_to_sum_segment[module_id].sum() > 0
        assert buffer._module_to_min_segment[module_id].min() > 0
    assert not buffer._module_to_last_sampled_indices["m"]


def test_priorities_are_leaves_of_trees_and_updated_for_the_last_sample():
    buffer = PrioritizedEpisodeReplayBuffer(capacity=8, alpha=0.5)
    buffer.add(episode(4, id_="a"))
    leaves = [index[-1] for index in buffer._indices]
    assert [buffer._tree_idx_to_sample_idx[leaf] for leaf in leaves] == [0, 1, 2, 3]
    buffer._last_sampled_indices = [leaves[2], leaves[0]]
    buffer.update_priorities(np.array([4.0, 9.0]))
    sums, lowest = buffer._sum_segment, buffer._min_segment
    assert [sums.value[sums.capacity + leaf] for leaf in leaves] == [3.0, 1.0, 2.0, 1.0], (
        "Priorities come in the order of `_last_sampled_indices`; leaves hold them to the power α."
    )
    assert (sums.sum(), lowest.min()) == (7.0, 1.0)
    assert sums.find_prefixsum_idx(
        0.5 + sum(sums.value[sums.capacity + i] for i in range(leaves[2]))
    )
    assert not buffer._last_sampled_indices, "An update is for one sample."


def test_sequences_are_chunks_with_their_lookback_each_counted_one_step_longer():
    buffer = EpisodeReplayBuffer(capacity=100)
    buffer.add(episode(40, id_="a"))
    sampled = buffer.sample(
        num_items=5 * (3 + 1), batch_length_T=3, n_step=1, sample_episodes=True, lookback=2
    )
    assert len(sampled) >= 5, "replay_buffers/offline.py asks for T + 1 items for each chunk."
    for chunk in sampled:
        first = int(chunk.get_observations(0)[0])
        assert chunk.t_started == first
        assert chunk.observations.lookback == min(2, first), "Chunks bring their past along."


def test_counts_of_a_sample_are_logged_by_these_arguments():
    counts = {"num_env_steps_sampled": 4, "num_episodes_per_sample": 1}
    counts |= {"num_env_steps_per_sample": 4, "sampled_n_step": 1.0, "num_resamples": 0}
    kinds = ("num_steps_sampled", "num_episodes_per_sample", "num_steps_per_sample")
    by_kind = {
        f"{who}_to_{kind}": {}
        for who in ("agent", "module")
        for kind in (*kinds, "sampled_n_step", "num_resamples")
    }
    EpisodeReplayBuffer(capacity=4)._update_sample_metrics(**counts, **by_kind)


@pytest.mark.parametrize("buffer_class", BUFFERS[:2], ids=lambda cls: cls.__name__)
def test_the_oldest_episodes_are_evicted_when_steps_exceed_the_capacity(buffer_class):
    buffer = buffer_class(capacity=8)
    for first in (0, 100, 200):
        buffer.add(episode(4, first=first, id_=str(first)))
    assert (buffer._num_timesteps, buffer._num_episodes_evicted) == (8, 1)
    assert buffer.get_num_episodes_evicted() == 1
    assert [stored.id_ for stored in buffer.episodes] == ["100", "200"]
    assert buffer.episodes[buffer.episode_id_to_index["200"] - 1].id_ == "200"


@pytest.mark.parametrize("buffer_class", BUFFERS[:2], ids=lambda cls: cls.__name__)
def test_fragments_join_their_episode_without_their_lookback(buffer_class):
    buffer = buffer_class(capacity=100)
    running = episode(3, id_="a", done=False)
    buffer.add(running)
    rest = running.cut(len_lookback_buffer=2)
    rest.add_env_step(np.full(3, 4, np.float32), 0, 0.0)
    buffer.add(rest)
    [stored] = buffer.episodes
    assert (len(stored), stored.observations.lookback) == (4, 0)
    assert [int(obs[0]) for obs in stored.get_observations()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("buffer_class", BUFFERS, ids=lambda cls: cls.__name__)
def test_a_built_buffer_can_change_its_class(buffer_class):
    mixin = type("Mixin", (), {"__slots__": ()})
    own = type("Own", (mixin, buffer_class), {})
    buffer = buffer_class(capacity=10)
    buffer.__class__ = own  # TypeError if RLlib's classes had slots
    assert isinstance(buffer, own)
