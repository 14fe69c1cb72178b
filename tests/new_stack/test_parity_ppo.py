"""Training computes what the rollout computed: PPO over options, spaces and episode lengths."""

import pytest
from gymnasium import spaces
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations

from rllib_attention.nn.positions import POSITIONS
from tests.harness import IMAGE, PARITY, VECTOR, build, prepare, worst_mismatch


def ppo(**env_config):
    config = prepare(PPOConfig(), **env_config)
    # 37 divides neither chunk nor episode; lr is large, so that a stale key shows.
    config.env_runners(rollout_fragment_length=37)
    return config.training(
        train_batch_size_per_learner=111, minibatch_size=64, num_epochs=1, lr=0.01
    )


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("gate", ["residual", "gru"])
@pytest.mark.parametrize(("num_layers", "window"), [(1, 1), (1, 9), (2, 5), (3, 3)])
def test_options(stop, position, gate, num_layers, window):
    algo = stop(build(ppo(), position=position, gate=gate, num_layers=num_layers, window=window))
    assert worst_mismatch(algo, iterations=2) < PARITY


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2, "position": "relative", "gate": "gru"},
        {"dilation": 3, "num_layers": 3, "window": 4},
        {"dilation": 5, "window": 3, "position": "recency"},
        {"dilation": 9, "window": 9, "position": "none", "prev_actions": 2, "prev_rewards": 1},
    ],
    ids=str,
)
def test_dilated_windows(stop, options):
    """Contexts of 12, 39, 12 and 80 steps; episodes are shorter than the last two, or longer."""
    algo = stop(build(ppo(lengths=(2, 120)), **options))
    assert worst_mismatch(algo, iterations=3) < PARITY


@pytest.mark.parametrize("prev", [{}, {"prev_actions": 3, "prev_rewards": 1}], ids=str)
def test_a_past_too_long_for_a_lookback(stop, prev):
    """A context of 288 steps, carried by fragments of 37; episodes shorter and longer."""
    algo = stop(build(ppo(lengths=(20, 700)), window=17, dilation=17, **prev))
    assert algo.config.episode_lookback_horizon == 1
    assert worst_mismatch(algo, iterations=10) < PARITY


def test_a_past_too_long_for_a_lookback_from_remote_runners(stop):
    config = ppo(lengths=(20, 700)).env_runners(num_env_runners=2, rollout_fragment_length=19)
    assert worst_mismatch(stop(build(config, window=17, dilation=17)), iterations=6) < PARITY


def test_dilated_windows_of_remote_runners(stop):
    config = ppo(lengths=(2, 120)).env_runners(num_env_runners=2, rollout_fragment_length=19)
    assert worst_mismatch(stop(build(config, dilation=4)), iterations=2) < PARITY


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.Box(-1.0, 1.0, (2,)),
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1.0, 1.0, (1,))}),
        spaces.Tuple((spaces.Discrete(2), spaces.MultiDiscrete([2, 2]))),
    ],
    ids=lambda space: type(space).__name__,
)
@pytest.mark.parametrize("previous", [0, 2])
def test_action_spaces(stop, action_space, previous):
    config = ppo(action_space=action_space)
    algo = stop(build(config, prev_actions=previous, prev_rewards=previous))
    assert worst_mismatch(algo) < PARITY


def test_free_log_std(stop):
    config = ppo(action_space=spaces.Box(-1.0, 1.0, (2,)))
    config.rl_module(model_config=dict(config.model_config, free_log_std=True))
    assert worst_mismatch(stop(build(config))) < PARITY


@pytest.mark.parametrize(
    "observation_space",
    [
        spaces.Discrete(5),
        spaces.MultiDiscrete([3, 2]),
        spaces.Dict({"a": spaces.Discrete(3), "b": VECTOR}),
    ],
    ids=lambda space: type(space).__name__,
)
def test_flattened_observations(stop, observation_space):
    config = ppo(observation_space=observation_space)
    config.env_runners(env_to_module_connector=lambda env, spaces, device: FlattenObservations())
    assert worst_mismatch(stop(build(config, prev_rewards=1))) < PARITY


def test_images_keep_their_type(stop):
    config = ppo(observation_space=IMAGE)
    filters = {"conv_filters": [[4, 8, 4], [8, 4, 2]], "head_fcnet_hiddens": []}
    config.rl_module(model_config=filters)
    assert worst_mismatch(stop(build(config)), iterations=1) < PARITY


@pytest.mark.parametrize("shared", [True, False])
def test_value_encoder(stop, shared):
    config = ppo()
    config.rl_module(model_config=dict(config.model_config, vf_share_layers=shared))
    assert worst_mismatch(stop(build(config))) < PARITY


@pytest.mark.parametrize("lengths", [(200, 300), (1, 3)], ids=["long", "short"])
def test_episode_lengths(stop, lengths):
    assert worst_mismatch(stop(build(ppo(lengths=lengths))), iterations=4) < PARITY


def test_complete_episodes(stop):
    config = ppo().env_runners(batch_mode="complete_episodes", rollout_fragment_length="auto")
    assert worst_mismatch(stop(build(config)), num_episodes=3) < PARITY


def test_remote_runners(stop):
    config = ppo().env_runners(num_env_runners=2, rollout_fragment_length=19)
    assert worst_mismatch(stop(build(config))) < PARITY
