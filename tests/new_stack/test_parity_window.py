"""The window path: what the rollout computed, from windows; windows are the true past."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.columns import Columns

from rllib_attention.encoder.packed_window import pack_window, unpack_window
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from rllib_attention.new_stack.connectors.windows import transition_windows
from tests.harness import DISCRETE, IMAGE, PARITY, build, prepare
from tests.pair import window_mismatch

BOX = spaces.Box(-1.0, 1.0, (2,))
CONTEXT = 8  # of the harness' options: 2 layers, window 5
ALGORITHMS = {
    "dqn": (DQNConfig, DISCRETE, {"double_q": True, "dueling": True}),
    "dqn-distributional": (DQNConfig, DISCRETE, {"num_atoms": 3, "v_min": -3.0, "v_max": 3.0}),
    "dqn-n-step": (DQNConfig, DISCRETE, {"n_step": 3}),
    "sac": (SACConfig, BOX, {}),
    "sac-discrete": (SACConfig, DISCRETE, {}),
    "sac-uniform": (
        SACConfig,
        BOX,
        {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1000}},
    ),
    "tqc": (TQCConfig, BOX, {}),
}


def off_policy(name, **env_config):
    config_class, action_space, training = ALGORITHMS[name]
    config = prepare(config_class(), action_space=action_space, **env_config)
    config.reporting(min_sample_timesteps_per_iteration=40, min_time_s_per_iteration=0)
    return config.training(
        train_batch_size_per_learner=16, num_steps_sampled_before_learning_starts=30, **training
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_windows_give_what_the_rollout_gave(stop, name):
    algo = stop(build(off_policy(name), prev_actions=2, prev_rewards=1))
    for _ in range(2):
        algo.train()
    # Mid-episode, right after a weight sync, with a cut in the middle.
    module = algo.learner_group._learner.module["default_policy"]
    for _ in range(2):
        assert window_mismatch(algo.env_runner, module, num_timesteps=60) < PARITY


@pytest.mark.parametrize("name", ["dqn", "dqn-n-step", "sac", "sac-uniform"])
def test_replayed_windows_are_the_true_past(stop, name):
    algo = stop(build(off_policy(name), prev_rewards=1))
    for _ in range(4):
        algo.train()
    learner, buffer = algo.learner_group._learner, algo.local_replay_buffer
    stored = {}
    for episode in buffer.episodes:
        obs, rewards = np.stack(episode.get_observations()), np.asarray(episode.get_rewards())
        for t in range(len(obs)):
            stored[obs[t].tobytes()] = (obs, rewards, t)
    n_step = algo.config.n_step
    sampled = buffer.sample(num_items=64, n_step=n_step, gamma=0.9, beta=0.4, sample_episodes=True)
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=sampled, shared_data={}
    )["default_policy"]
    beyond = 0
    for column, ahead in ((Columns.OBS, 0), (Columns.NEXT_OBS, 1)):
        obs, features, valid = unpack_window(batch[column], (3,), 1)
        for row in range(len(obs)):
            truth, rewards, t = stored[obs[row, -1].numpy().tobytes()]
            known = min(t, CONTEXT)
            assert valid[row].tolist() == [False] * (CONTEXT - known) + [True] * (known + 1)
            np.testing.assert_array_equal(obs[row][valid[row]], truth[t - known : t + 1])
            expected = [rewards[s - 1] if s else 0.0 for s in range(t - known, t + 1)]
            np.testing.assert_allclose(features[row][valid[row], 0], expected, rtol=1e-6)
            beyond += t > CONTEXT
        if ahead:
            steps = [stored[o.numpy().tobytes()][2] for o in obs[:, -1]]
            starts = [
                stored[o.numpy().tobytes()][2]
                for o in unpack_window(batch[Columns.OBS], (3,), 1)[0][:, -1]
            ]
            assert all(0 < b - a <= n_step for a, b in zip(starts, steps, strict=True))
    assert beyond > 10


def test_images_stay_uint8(stop):
    config = off_policy("dqn", observation_space=IMAGE)
    config.rl_module(
        model_config={"conv_filters": [[4, 8, 4], [8, 4, 2]], "head_fcnet_hiddens": []}
    )
    algo = stop(build(config, prev_rewards=1, num_layers=1, window=3))
    for _ in range(2):
        algo.train()
    [episode, *_] = algo.local_replay_buffer.sample(
        num_items=1, n_step=1, gamma=0.9, beta=0.4, sample_episodes=True
    )
    windows, _ = transition_windows(episode, inspect_module(algo.get_module()))
    assert windows.dtype == np.uint8
    assert windows.shape == (1, 3, 42 * 42 * 3 + 4 + 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_packing_round_trips(dtype):
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 255, (5, 4, 2)).astype(dtype)
    features = rng.normal(size=(5, 3)).astype(np.float32)
    valid = np.array([False, False, True, True, True])
    packed = pack_window(obs, features, valid)
    assert packed.dtype == dtype
    back = unpack_window(torch.from_numpy(packed)[None], (4, 2), 3)
    for mine, theirs in zip(back, (obs, features, valid), strict=True):
        np.testing.assert_array_equal(mine[0].numpy(), theirs)


def test_wrong_window_size_names_the_call():
    with pytest.raises(ValueError, match=r"must have size 4 .* call it last"):
        unpack_window(torch.zeros(2, 5, 3), (3,), 0)
