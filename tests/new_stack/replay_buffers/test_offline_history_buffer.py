"""Histories of recorded episodes, through RLlib's real prelearner and a real CQL run."""

import functools
import re

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.offline.offline_prelearner import OfflinePreLearner

from rllib_attention.new_stack.connectors import AddWindowsToTrainBatch
from rllib_attention.new_stack.replay_buffers import OfflineHistoryBuffer
from tests.new_stack.replay_buffers.history_connector import CheckHistories, read_lengths
from tests.new_stack.replay_buffers.marked_episodes import (
    MarkedEnv,
    OldestSteps,
    check_runs,
    make_chunks,
)

ENV_CONFIG = {"continuous": True}
HISTORY_LEN = 5


def record(path) -> None:
    """Lets SAC's env runner record complete episodes of the marked environment."""
    config = (
        SACConfig()
        .environment(MarkedEnv, env_config=ENV_CONFIG)
        .env_runners(num_env_runners=0, batch_mode="complete_episodes", rollout_fragment_length=9)
        .offline_data(output=str(path), output_write_episodes=True, output_max_rows_per_file=5)
        .training(num_steps_sampled_before_learning_starts=10**6)
        .reporting(min_sample_timesteps_per_iteration=150)
        .rl_module(model_config={"fcnet_hiddens": [8], "head_fcnet_hiddens": [8]})
    )
    algo = config.build_algo()
    algo.train()
    algo.stop()


def offline_config(config, path, log):
    return (
        config.environment(MarkedEnv, env_config=ENV_CONFIG)
        .offline_data(
            input_=[str(path)],
            input_read_episodes=True,
            prelearner_buffer_class=OfflineHistoryBuffer,
            prelearner_buffer_kwargs={"history_len": HISTORY_LEN, "run_len": 3},
            dataset_num_iters_per_learner=2,
            materialize_mapped_data=False,
            map_batches_kwargs={"concurrency": 1},
        )
        .training(train_batch_size_per_learner=16)
        .learners(
            learner_connector=functools.partial(
                lambda *_, **kw: [CheckHistories(**kw), AddWindowsToTrainBatch()],
                log=str(log),
                history_len=HISTORY_LEN,
            )
        )
        .rl_module(model_config={"fcnet_hiddens": [8], "head_fcnet_hiddens": [8]})
    )


@pytest.mark.parametrize("config_class", [CQLConfig, IQLConfig])
def test_prelearner_gives_recorded_episodes_their_history(tmp_path, config_class):
    config = offline_config(config_class(), tmp_path, tmp_path / "log")
    env = MarkedEnv(type("Config", (dict,), {"worker_index": 0})(ENV_CONFIG))
    config.rl_module(rl_module_spec=config.get_multi_rl_module_spec(env=env))
    spaces = (env.observation_space, env.action_space)
    prelearner = OfflinePreLearner(config=config, spaces=spaces)
    recorded = [make_chunks(i, [4 + i])[0] for i in range(8)]
    for episode in recorded:  # Actions of this environment are continuous.
        episode.actions.data = episode.actions.data[:, None].astype(np.float32)
    packed = [
        msgpack.packb(episode.get_state(), default=msgpack_numpy.encode) for episode in recorded
    ]
    for _ in range(3):
        batch = prelearner({"item": packed})
    assert batch["default_policy/obs"].shape == (16, 2)
    lengths = read_lengths(tmp_path / "log")
    assert [len(line) for line in lengths] == [16, 16, 16]
    assert {0, HISTORY_LEN} <= {length for line in lengths for length in line}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_cql_trains_on_recorded_episodes_with_history(tmp_path):
    record(tmp_path / "data")
    config = offline_config(CQLConfig(), tmp_path / "data", tmp_path / "log").training(
        lr=None, bc_iters=0
    )
    # One pass over the data: each further one starts new Ray Data actors.
    config.reporting(min_train_timesteps_per_iteration=0, min_time_s_per_iteration=0)
    algo = config.build_algo()
    try:
        algo.train()
    finally:
        algo.stop()
    lengths = read_lengths(tmp_path / "log")
    assert len(lengths) >= 2
    assert {0, HISTORY_LEN} <= {length for line in lengths for length in line}


def test_a_set_of_episodes_is_stored_and_sampled():
    buffer = OfflineHistoryBuffer(capacity=40, batch_size_B=16, history_len=HISTORY_LEN, run_len=4)
    known = OldestSteps(buffer)
    for i in range(0, 12, 3):
        # The prelearner adds a set. With more steps than capacity, the oldest go.
        buffer.add({make_chunks(j, [7])[0] for j in range(i, i + 3)})
        [sampled] = buffer.sample(n_step=1, sample_episodes=True, to_numpy=True)
        assert len(check_runs(sampled, history_len=HISTORY_LEN)) == 16
    assert len(buffer) <= 40
    assert known.oldest == {}


def test_recorded_state_round_trips():
    (episode,) = make_chunks(0, [4])
    state = msgpack.unpackb(
        msgpack.packb(episode.get_state(), default=msgpack_numpy.encode),
        object_hook=msgpack_numpy.decode,
    )
    buffer = OfflineHistoryBuffer(history_len=2)
    buffer.add([SingleAgentEpisode.from_state(state)])
    [sampled] = buffer.sample(8, n_step=1, sample_episodes=True)
    check_runs(sampled, history_len=2)


@pytest.mark.parametrize("n_step", [3, (1, 5)])
def test_n_step_is_refused(n_step):
    buffer = OfflineHistoryBuffer(history_len=2)
    buffer.add(make_chunks(0, [9]))
    message = f"`n_step` must be 1 for offline data, but got {n_step!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        buffer.sample(4, n_step=n_step, sample_episodes=True)
