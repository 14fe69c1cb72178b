"""What `check_replay_config` accepts and refuses, and that RLlib agrees."""

import re

import pytest
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer

from rllib_attention.new_stack.replay_buffers import (
    check_replay_config,
    check_run_length,
    run_length_that_pays,
)

UNIFORM = {"type": "EpisodeReplayBuffer"}
PRIORITISED = {"type": "PrioritizedEpisodeReplayBuffer", "alpha": 0.6, "beta": 0.4}
MULTI_UNIFORM = {"type": "MultiAgentEpisodeReplayBuffer"}
MULTI_PRIORITISED = {**PRIORITISED, "type": "MultiAgentPrioritizedEpisodeReplayBuffer"}


@pytest.mark.parametrize("config_class", [DQNConfig, SACConfig, TQCConfig])
def test_rllibs_defaults_pass(config_class):
    config = config_class()
    check_replay_config(config.replay_buffer_config, config.n_step)


def test_rllibs_dreamer_default_passes():
    check_replay_config(DreamerV3Config().replay_buffer_config, 1)


@pytest.mark.parametrize("config_class", [DQNConfig, SACConfig, TQCConfig])
@pytest.mark.parametrize("buffer", [UNIFORM, PRIORITISED, MULTI_UNIFORM, MULTI_PRIORITISED])
def test_what_passes_is_what_rllib_accepts(config_class, buffer):
    config = config_class().environment("CartPole-v1").training(replay_buffer_config=buffer)
    if config_class is TQCConfig:
        config.environment("Pendulum-v1")
    check_replay_config(config.replay_buffer_config, config.n_step)
    config.validate()


@pytest.mark.parametrize(
    ("buffer", "n_step"),
    [
        (UNIFORM, 1),
        (UNIFORM, 3),
        (UNIFORM, (1, 5)),
        (PRIORITISED, 3),
        (PRIORITISED, (1, 5)),
        (MULTI_UNIFORM, 3),
        (MULTI_PRIORITISED, (2, 5)),
        ({**PRIORITISED, "replay_mode": "independent"}, 1),
    ],
)
def test_right_configs_pass(buffer, n_step):
    check_replay_config(buffer, n_step)


@pytest.mark.parametrize(
    "buffer_type",
    [
        None,
        "MultiAgentPrioritizedReplayBuffer",
        "ReplayBuffer",
        "NoSuchBuffer",
        EpisodeReplayBuffer,
        "ray.rllib.utils.replay_buffers.EpisodeReplayBuffer",
    ],
)
def test_other_types_are_refused(buffer_type):
    with pytest.raises(ValueError, match=re.escape(f"but got {buffer_type!r}: att")) as error:
        check_replay_config({"type": buffer_type}, 1)
    assert "EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer, MultiAgent" in str(error.value)
    assert 'Call `config.training(replay_buffer_config={"type": "EpisodeReplayBuffer"})`.' in str(
        error.value
    )


@pytest.mark.parametrize(
    ("buffer", "multi_agent", "right"),
    [
        (UNIFORM, True, '"MultiAgentEpisodeReplayBuffer"}'),
        (MULTI_UNIFORM, False, '"EpisodeReplayBuffer"}'),
        (PRIORITISED, True, '"MultiAgentPrioritizedEpisodeReplayBuffer", "alpha": 0.6, '),
        (MULTI_PRIORITISED, False, '"PrioritizedEpisodeReplayBuffer", "alpha": 0.6, '),
    ],
)
def test_single_and_multi_agent_buffers_are_told_apart(buffer, multi_agent, right):
    check_replay_config(buffer, 1, multi_agent=not multi_agent)
    kind = "multi" if multi_agent else "single"
    with pytest.raises(ValueError, match=f"cannot store the episodes of a {kind}-agent") as error:
        check_replay_config(buffer, 1, multi_agent=multi_agent)
    assert f'replay_buffer_config={{"type": {right}' in str(error.value)


@pytest.mark.parametrize("beta", [None, -0.1, "0.4"])
@pytest.mark.parametrize("buffer", [PRIORITISED, MULTI_PRIORITISED])
def test_a_prioritised_buffer_needs_beta(buffer, beta):
    message = f"`beta` must be a number >= 0 for type {buffer['type']!r}, but got {beta!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_replay_config({**buffer, "beta": beta}, 1)


@pytest.mark.parametrize("n_step", [0, -1, 1.0, True, None, [1, 5], (1, 5, 6), (3, 3), (0, 2)])
def test_n_step_is_checked(n_step):
    with pytest.raises(ValueError, match=re.escape(f"but got {n_step!r}. Call `config.training(")):
        check_replay_config(PRIORITISED, n_step)


def test_synchronized_replay_is_refused():
    with pytest.raises(ValueError, match="`replay_mode` must be 'independent', but got 'lockst"):
        check_replay_config({**MULTI_UNIFORM, "replay_mode": "lockstep"}, 1)


def replaying(config_class=SACConfig, *, batch=256, **buffer):
    config = config_class().training(train_batch_size_per_learner=batch)
    return config.training(replay_buffer_config={**UNIFORM, "capacity": 1000, **buffer})


@pytest.mark.parametrize(("batch", "length"), [(16, 1), (32, 1), (128, 4), (256, 8), (4096, 32)])
def test_the_default_leaves_enough_runs(caplog, batch, length):
    config = replaying(batch=batch)
    assert run_length_that_pays(config) == length
    check_run_length(config, length)
    assert not caplog.records


@pytest.mark.parametrize(
    ("config", "run_len", "message"),
    [
        (
            replaying(batch=8),
            9,
            "9 must not exceed the batch of `train_batch_size_per_learner` 8 transitions, which is "
            "made of runs of `max_seq_len`. Use `config.training(train_batch_size_per_learner=288)`"
            " or `use_attention(config, max_seq_len=1)`.",
        ),
        (
            replaying(capacity=20),
            21,
            "`max_seq_len` 21 must not exceed the replay buffer's `capacity` of 20 steps. Use `con",
        ),
        (
            CQLConfig().learners(num_learners=2).offline_data(input_="data"),
            2,
            "`max_seq_len` must be 1 for recorded data and several learners, got 2: Ray Data",
        ),
    ],
)
def test_runs_that_cannot_work_are_refused(config, run_len, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_run_length(config, run_len)
    check_run_length(config, 1)


def test_too_few_runs_are_warned_of(caplog):
    for _ in range(2):
        check_run_length(replaying(batch=130), 17)
    [record] = caplog.records
    text = record.getMessage()
    assert "A batch of 130 transitions has 8 runs of `max_seq_len` 17." in text
    assert "train_batch_size_per_learner=544" in text
    assert "max_seq_len=4" in text


def test_recorded_data_of_several_learners_come_in_single_transitions():
    config = CQLConfig().learners(num_learners=2).offline_data(input_="data")
    assert run_length_that_pays(config) == 1
    assert run_length_that_pays(config.learners(num_learners=1)) == 8
