"""What `check_replay_config` accepts and refuses, and that RLlib agrees."""

import re

import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer

from rllib_attention.new_stack.replay_buffers import check_replay_config

UNIFORM = {"type": "EpisodeReplayBuffer"}
PRIORITISED = {"type": "PrioritizedEpisodeReplayBuffer", "alpha": 0.6, "beta": 0.4}
MULTI_UNIFORM = {"type": "MultiAgentEpisodeReplayBuffer"}
MULTI_PRIORITISED = {**PRIORITISED, "type": "MultiAgentPrioritizedEpisodeReplayBuffer"}
USE_PRIORITISED = (
    'Call `config.training(replay_buffer_config={"type": "PrioritizedEpisodeReplayBuffer", '
    '"alpha": 0.6, "beta": 0.4})`.'
)


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
        (UNIFORM, (1, 2)),  # RLlib never draws the upper end.
        (PRIORITISED, 3),
        (PRIORITISED, (1, 5)),
        (MULTI_UNIFORM, 3),
        (MULTI_PRIORITISED, (2, 5)),
        ({**PRIORITISED, "replay_mode": "independent"}, 1),
    ],
)
def test_right_configs_pass(buffer, n_step):
    check_replay_config(buffer, n_step)


@pytest.mark.parametrize("n_step", [3, (1, 5), (2, 3)])
def test_the_uniform_buffer_is_refused_for_n_step(n_step):
    message = f"with the replay buffer type 'EpisodeReplayBuffer', but got {n_step!r}: RLlib's"
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check_replay_config(UNIFORM, n_step)
    assert str(error.value).endswith(USE_PRIORITISED)


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
