"""The example tasks reward memory, and nothing but memory, as their docstrings say."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from common import envs
from gymnasium.utils.env_checker import check_env

MAKERS = {
    "t_maze": lambda: envs.TMaze({"corridor_length": 7}),
    "passive_t_maze": lambda: envs.PassiveTMaze({"corridor_length": 7}),
    "bandit": envs.BanditEpisodes,
}
ON, UP, BACK, DOWN = range(4)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_env_checker(make: Callable[[], gym.Env]) -> None:
    check_env(make(), skip_render_check=True)


@pytest.mark.parametrize("length", [1, 10, 30])
def test_t_maze_pays_memory(length: int) -> None:
    env = envs.TMaze({"corridor_length": length})
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        cue = int(observation[0] > 0)
        rewards, done = [], False
        while not done:
            observation, reward, done, _, info = env.step(cue)
            rewards.append(reward)
        # The cue is seen at step 0; the choice is made `length` steps later.
        assert rewards == [0.0] * length + [1.0]
        assert info == {"success": True}


def test_t_maze_without_memory_is_a_coin_toss() -> None:
    env = envs.TMaze({"corridor_length": 3})
    env.reset(seed=0)
    junctions, successes = set(), []
    for _ in range(400):
        env.reset()
        for _ in range(3):
            observation, *_ = env.step(0)
        junctions.add(tuple(observation))
        successes.append(env.step(1)[4]["success"])
    # All junctions look the same, so whatever is chosen there is right half of the time.
    assert junctions == {(0.0, 1.0)}
    assert np.mean(successes) == pytest.approx(0.5, abs=0.08)


def test_t_maze_refuses_an_empty_corridor() -> None:
    with pytest.raises(ValueError, match="corridor_length must be at least 1, got 0"):
        envs.TMaze({"corridor_length": 0})


def _walk(actions: list[int], seed: int) -> tuple[list[tuple], list[float], dict]:
    """Plays a passive T-maze whose episodes have as many steps as there are actions."""
    env = envs.PassiveTMaze({"corridor_length": len(actions) - 1})
    first, _ = env.reset(seed=seed)
    observations, rewards, info = [tuple(first)], [], {}
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(tuple(observation))
        rewards.append(reward)
        assert terminated == (len(rewards) == len(actions))
        assert not truncated
    return observations, rewards, info


@pytest.mark.parametrize("seed", range(6))
def test_passive_t_maze_pays_who_walks_on_and_remembers(seed: int) -> None:
    (_, goal), *_ = _walk([ON] * 5, seed)[0]
    to_goal = UP if goal > 0 else DOWN
    observations, rewards, info = _walk([ON, ON, ON, ON, to_goal], seed)
    assert observations == [(0, goal), (0, 0), (0, 0), (0, 0), (1, 0), (1, goal)]
    assert (rewards, info) == ([0, 0, 0, 0, 1], {"success": True})
    _, rewards, info = _walk([ON, ON, ON, ON, UP + DOWN - to_goal], seed)
    assert (rewards, info) == ([0, 0, 0, 0, 0], {"success": False})


def test_passive_t_maze_charges_each_step_behind_schedule() -> None:
    # One step back at the start, against the wall: all later ones are late, and the goal is missed.
    observations, rewards, info = _walk([BACK, ON, ON, ON, ON], seed=0)
    assert observations[1:] == [(0, 0)] * 4 + [(1, 0)]
    assert (rewards, info) == ([-0.25] * 4 + [0], {"success": False})
    # There is no way up or down but at the junction, and none on from there.
    assert _walk([UP, DOWN, ON, BACK, ON], seed=0)[0][1:] == [(0, 0)] * 5
    assert _walk([ON, UP, ON], seed=0)[0][2:] == [(0, 0), (1, 0)]


def test_passive_t_maze_refuses_an_empty_corridor() -> None:
    with pytest.raises(ValueError, match="corridor_length must be at least 1, got 0"):
        envs.PassiveTMaze({"corridor_length": 0})


def test_bandit_pays_exploration() -> None:
    env = envs.BanditEpisodes()
    env.reset(seed=0)
    random = [_bandit_return(env, lambda wins, pulls: pulls.sum() % 5) for _ in range(400)]
    greedy = [
        _bandit_return(env, lambda wins, pulls: np.argmax((wins + 1) / (pulls + 2)))
        for _ in range(400)
    ]
    assert np.mean(random) == pytest.approx(20.0, abs=1.0)
    assert np.mean(greedy) > 25.0


def _bandit_return(env: gym.Env, choose: Callable[..., int]) -> float:
    env.reset()
    wins, pulls, done = np.zeros(5), np.zeros(5), False
    while not done:
        arm = int(choose(wins, pulls))
        observation, reward, done, _, _ = env.step(arm)
        assert observation == [0.0]
        wins[arm] += reward
        pulls[arm] += 1
    assert pulls.sum() == 40
    return wins.sum()


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, -1.0)])
def test_two_agent_recall(shift: int, expected: float) -> None:
    env = envs.TwoAgentRecall({"delay": 2, "num_symbols": 3, "episode_length": 10})
    observations, _ = env.reset(seed=1)
    seen = {agent: [] for agent in env.agents}
    total, done = 0.0, False
    while not done:
        for agent, observation in observations.items():
            assert observation in env.observation_spaces[agent]
            seen[agent].append(int(observation.argmax()))
        # Right answers (or, with a shift, wrong ones) from two steps ago.
        answers = {agent: (([0, 0] + seen[agent])[-3] + shift) % 3 for agent in env.agents}
        observations, rewards, terminated, _, _ = env.step(answers)
        assert len(set(rewards.values())) == 1
        total += sum(rewards.values())
        done = terminated["__all__"]
    assert total == pytest.approx(expected)


def test_repeat_previous_wants_the_card_of_three_steps_ago() -> None:
    pytest.importorskip("popgym")
    env = envs.make_repeat_previous({"difficulty": "easy"})
    observation, _ = env.reset(seed=0)
    seen, total, done = [observation], 0.0, False
    while not done:
        observation, reward, done, *_ = env.step(([0, 0, 0, *seen])[-4])
        seen.append(observation)
        total += reward
    assert total == pytest.approx(1.0)


def test_minigrid_memory_gives_images() -> None:
    pytest.importorskip("minigrid")
    env = envs.make_minigrid_memory({"size": 7})
    observation, _ = env.reset(seed=0)
    assert observation.shape == (7, 7, 11)
    assert observation in env.observation_space
    codes = env.unwrapped.gen_obs()["image"][..., 0]
    np.testing.assert_array_equal(observation.argmax(axis=-1), codes)
    np.testing.assert_array_equal(observation.sum(axis=-1), 1.0)
    assert env.action_space.n == 3


@pytest.mark.parametrize(
    ("make", "size", "limit"),
    [(envs.make_stateless_cartpole, 2, 500), (envs.make_masked_pendulum, 2, 200)],
)
def test_hidden_velocities(make: Callable[..., gym.Env], size: int, limit: int) -> None:
    env = make({})
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (size,)
    assert env.get_wrapper_attr("_max_episode_steps") == limit
