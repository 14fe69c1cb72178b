"""The benchmark's own tasks ask for what they say, and can be solved by memory alone."""

import gymnasium as gym
import numpy as np
import pytest

from tests.benchmarks.learning.envs import (
    CompareWithMean,
    CountSymbol,
    DistantCues,
    FlatInputs,
    NoiseBeforeCue,
    RepeatLag,
    TMaze,
    make_masked,
    make_stacked,
)


def count(seen: list[np.ndarray]) -> int:
    now = int(seen[-1].argmax())
    return min(3, sum(int(obs.argmax()) == now for obs in seen[-31:-1]))


def compare(seen: list[np.ndarray]) -> int:
    return int(len(seen) > 1 and seen[-1][0] > np.mean([obs[0] for obs in seen[:-1]]))


def latest_cue(seen: list[np.ndarray]) -> int:
    cues = [obs[4] for obs in seen if obs[4]]
    return int(bool(cues) and cues[-1] > 0)


def first_cue(seen: list[np.ndarray]) -> int:
    return int(seen[0][0] > 0)


def asked_cue(seen: list[np.ndarray]) -> int:
    cues, asked = seen[-1][2:5], seen[-1][5:]
    assert not (cues.any() and asked.any())
    return int(sum(obs[2:5] for obs in seen)[asked.argmax()] > 0)


def lagged(seen: list[np.ndarray]) -> int:
    return int(seen[-22].argmax()) if len(seen) > 21 else 0


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (CountSymbol, count),
        (CompareWithMean, compare),
        (NoiseBeforeCue, latest_cue),
        (DistantCues, asked_cue),
        (RepeatLag, lagged),
        (TMaze, first_cue),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_memory_alone_earns_all(make: type[gym.Env], answer, seed: int) -> None:
    env, total, done = make({"length": 60}), 0.0, False
    seen = [env.reset(seed=seed)[0]]
    assert env.observation_space.contains(seen[0])
    while not done:
        obs, reward, done, _, _ = env.step(answer(seen))
        seen.append(obs)
        total += reward
    assert total == pytest.approx(1.0)
    assert len(seen) == 61


@pytest.mark.parametrize("make", [CompareWithMean, NoiseBeforeCue, DistantCues, TMaze])
def test_without_memory_half_of_the_answers_are_right(make: type[gym.Env]) -> None:
    env, returns = make({"length": 60}), []
    for seed in range(300):
        env.reset(seed=seed)
        returns.append(sum(env.step(1)[1] for _ in range(60)))
    assert np.mean(returns) == pytest.approx(0.0, abs=0.15)


def test_a_question_comes_at_least_three_steps_after_its_cue() -> None:
    env = NoiseBeforeCue({"length": 60, "delay": 25})
    for seed in range(20):
        env.reset(seed=seed)
        cues, asked = (np.flatnonzero(env._inputs[:, channel]) for channel in (4, 5))
        assert len(asked)
        for cue, question in zip(cues, asked, strict=False):
            assert 3 <= question - cue <= 25


def test_flat_inputs_join_the_previous_action() -> None:
    env = FlatInputs(TMaze({"length": 5}), previous_action=True)
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs[2:], [0.0, 0.0])
    obs, *_ = env.step(1)
    np.testing.assert_array_equal(obs[2:], [0.0, 1.0])
    assert env.observation_space.contains(obs)


def test_masked_observations_are_the_numbers_that_are_named() -> None:
    env, whole = make_masked({"id": "CartPole-v1", "seen": (0, 2)}), gym.make("CartPole-v1")
    assert (env.reset(seed=1)[0] == whole.reset(seed=1)[0][[0, 2]]).all()
    assert env.observation_space.shape == (2,)


def test_stacked_frames_are_the_latest_ones() -> None:
    config = {"id": "Pendulum-v1", "seen": [0, 1]}
    env, alone = make_stacked(make_masked, 3)(config), make_masked(config)
    first, second = alone.reset(seed=1)[0], alone.step([0.5])[0]
    assert (env.reset(seed=1)[0] == [*first, *first, *first]).all()
    assert (env.step([0.5])[0] == [*first, *first, *second]).all()
