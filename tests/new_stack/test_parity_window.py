"""The window path: what the rollout computed, from windows; windows are the true past."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.columns import Columns

from rllib_attention.encoder.packed_window import unpack_tokens
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from tests.harness import DISCRETE, IMAGE, PARITY, build, prepare
from tests.pair import window_mismatch

BOX = spaces.Box(-1.0, 1.0, (2,))
CONTEXT = 8  # of the harness' options: 2 layers, window 5
ALGORITHMS = {
    "dqn": (DQNConfig, DISCRETE, {"double_q": True, "dueling": True}),
    "dqn-distributional": (DQNConfig, DISCRETE, {"num_atoms": 3, "v_min": -3.0, "v_max": 3.0}),
    "dqn-n-step": (DQNConfig, DISCRETE, {"n_step": 3}),
    "dqn-uniform-n-step": (
        DQNConfig,
        DISCRETE,
        {"n_step": 2, "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1000}},
    ),
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


@pytest.mark.parametrize("name", ["dqn", "sac"])
@pytest.mark.parametrize("max_seq_len", [1, 4])
def test_dilated_windows_give_what_the_rollout_gave(stop, name, max_seq_len):
    options = {"dilation": 3, "window": 4, "max_seq_len": max_seq_len, "prev_rewards": 1}
    algo = stop(build(off_policy(name), **options))
    for _ in range(2):
        algo.train()
    module = algo.learner_group._learner.module["default_policy"]
    for _ in range(2):
        assert window_mismatch(algo.env_runner, module, num_timesteps=60) < PARITY


def replayed(algo, num_items=64):
    """A batch of replayed transitions, as the learner gets it."""
    learner, n_step = algo.learner_group._learner, algo.config.n_step
    sampled = algo.local_replay_buffer.sample(
        num_items=num_items, n_step=n_step, gamma=0.9, beta=0.4, sample_episodes=True
    )
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=sampled, shared_data={}
    )
    return batch["default_policy"]


def windows_of(packed):
    """The observations and rewards that each row's output depends on, (context + 1, ...) each.

    Of streams as well as of windows; what a run has beyond an output's context is cut off.
    """
    obs, features, tags = (x.numpy() for x in unpack_tokens(packed, (3,), 1))
    if tags.max() <= 1:
        return [(obs[row][valid], features[row][valid]) for row, valid in enumerate(tags > 0)]
    found, first = [], 0
    tags = tags.reshape(-1).astype(int)
    obs, features = obs.reshape(len(tags), -1), features.reshape(len(tags), -1)
    for i, tag in enumerate(tags):
        first = i if tag & 4 else first
        if tag & 3 == 2:
            seen = slice(max(first, i - CONTEXT), i + 1)
            found.append((obs[seen], features[seen]))
    return found


@pytest.mark.parametrize("max_seq_len", [1, 4])
@pytest.mark.parametrize("name", ["dqn", "dqn-n-step", "dqn-uniform-n-step", "sac", "sac-uniform"])
def test_replayed_steps_are_the_true_past(stop, name, max_seq_len):
    algo = stop(build(off_policy(name), prev_rewards=1, max_seq_len=max_seq_len))
    for _ in range(4):
        algo.train()
    stored = {}
    for episode in algo.local_replay_buffer.episodes:
        obs, rewards = np.stack(episode.get_observations()), np.asarray(episode.get_rewards())
        for t in range(len(obs)):
            stored[obs[t].tobytes()] = (obs, rewards, t, episode.is_terminated)
    batch, n_step = replayed(algo), algo.config.n_step
    beyond = 0
    steps = {}
    for column in (Columns.OBS, Columns.NEXT_OBS):
        assert batch[column].shape[0] == 64
        windows = windows_of(batch[column])
        assert len(windows) == 64
        for obs, features in windows:
            truth, rewards, t, _ = stored[obs[-1].tobytes()]
            known = min(t, CONTEXT)
            np.testing.assert_array_equal(obs, truth[t - known : t + 1])
            expected = [rewards[s - 1] if s else 0.0 for s in range(t - known, t + 1)]
            np.testing.assert_allclose(features[:, 0], expected, rtol=1e-6)
            beyond += t > CONTEXT
        steps[column] = [stored[obs[-1].tobytes()] for obs, _ in windows]
    assert beyond > 10
    for row, (first, last) in enumerate(zip(*steps.values(), strict=True)):
        (obs, rewards, t, is_terminated), (_, _, after, _) = first, last
        assert after - t == n_step == batch["n_step"][row]
        expected = rewards[t:after] @ 0.9 ** np.arange(n_step)
        assert float(batch[Columns.REWARDS][row]) == pytest.approx(expected, abs=1e-5)
        is_last = after == len(obs) - 1
        assert bool(batch[Columns.TERMINATEDS][row]) == (is_last and is_terminated)


# Both have a context of 8 steps.
@pytest.mark.parametrize("options", [{}, {"window": 3, "dilation": 3}], ids=str)
@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_runs_give_what_windows_give(stop, name, options):
    """Every encoder of the module, on observations and next observations."""
    algo = stop(build(off_policy(name), prev_actions=1, max_seq_len=4, **options))
    for _ in range(2):
        algo.train()
    batch = replayed(algo)
    module = inspect_module(algo.learner_group._learner.module["default_policy"])
    for column in (Columns.OBS, Columns.NEXT_OBS):
        stream = batch[column]
        size = stream.shape[-1]
        windows = torch.zeros(len(stream), CONTEXT + 1, size)
        tags = stream[..., -1].flatten().long()
        row, first = 0, 0
        for i, tag in enumerate(tags.tolist()):
            first = i if tag & 4 else first
            if tag & 3 == 2:
                seen = stream.flatten(0, 1)[max(first, i - CONTEXT) : i + 1].clone()
                seen[:, -1] = 1
                windows[row, CONTEXT + 1 - len(seen) :] = seen
                row += 1
        for encoder in module.encoders:
            with torch.no_grad():
                out, expected = (
                    encoder({Columns.OBS: x})["encoder_out"] for x in (stream, windows)
                )
            torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


def test_images_stay_uint8(stop):
    config = off_policy("dqn", observation_space=IMAGE)
    config.rl_module(
        model_config={"conv_filters": [[4, 8, 4], [8, 4, 2]], "head_fcnet_hiddens": []}
    )
    algo = stop(build(config, prev_rewards=1, num_layers=1, window=3, max_seq_len=4))
    for _ in range(2):
        algo.train()
    batch = replayed(algo, num_items=16)
    assert batch[Columns.OBS].dtype == torch.uint8
    assert batch[Columns.OBS].shape[-1] == 42 * 42 * 3 + 4 + 4
    # 4 runs of 4 with a context of 2, and a step more for next observations.
    assert batch[Columns.OBS].shape[:2] == (16, 2)
