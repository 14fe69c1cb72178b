"""The window path: what the rollout computed, from windows; windows are the true past."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.columns import Columns

from rllib_attention.new_stack.connectors.attention_module import inspect_module
from tests.harness import DISCRETE, IMAGE, PARITY, build, prepare
from tests.pair import window_mismatch
from tests.streams import as_windows, read_windows

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
        windows = read_windows(batch[column], CONTEXT, (3,), 1)
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
        windows = as_windows(stream, CONTEXT)
        for encoder in module.encoders:
            with torch.no_grad():
                out, expected = (
                    encoder({Columns.OBS: x})["encoder_out"] for x in (stream, windows)
                )
            torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["dqn-distributional", "dqn-n-step", "sac-discrete", "tqc"])
def test_every_algorithm_learns_from_runs(stop, name):
    algo = stop(build(off_policy(name), max_seq_len=4))
    before = {k: v.clone() for k, v in learner_weights(algo).items()}
    for _ in range(2):
        results = algo.train()["learners"]["default_policy"]
    assert all(np.isfinite(value) for key, value in results.items() if key.endswith("_loss"))
    assert max(algo.local_replay_buffer.sample(16, sample_episodes=True)[0].runs.length) > 1
    moved = [k for k, v in learner_weights(algo).items() if not torch.equal(before[k], v)]
    assert any("transformer" in k for k in moved)


def learner_weights(algo):
    return algo.learner_group._learner.module["default_policy"].state_dict()


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
