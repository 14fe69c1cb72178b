"""Episodes whose every entry says which episode and time step it belongs to."""

from typing import NamedTuple

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_attention.new_stack.replay_buffers import SampledRuns


def observation(episode: int, t: int) -> np.ndarray:
    return np.array([episode, t], np.float32)


def reward(t: int) -> float:
    return t + 0.5


def make_chunks(
    episode: int,
    lengths: list[int],
    *,
    lookback: int = 0,
    done: bool = True,
    to_numpy: bool = True,
    dict_obs: bool = False,
) -> list[SingleAgentEpisode]:
    """Cuts one episode into chunks of `lengths`, as an env runner does."""

    def obs(t: int):
        array = observation(episode, t)
        return {"episode": array[:1], "t": array[1:].astype(np.uint8)} if dict_obs else array

    chunk = SingleAgentEpisode(id_=f"e{episode}")
    chunk.add_env_reset(obs(0))
    chunks, t = [], 0
    for i, length in enumerate(lengths):
        for _ in range(length):
            last = done and i == len(lengths) - 1 and t == sum(lengths) - 1
            chunk.add_env_step(
                obs(t + 1), t, reward(t), terminated=last, extra_model_outputs={"logp": -t}
            )
            t += 1
        chunks.append(chunk)
        if not chunk.is_done:
            chunk = chunk.cut(len_lookback_buffer=lookback)
    return [chunk.to_numpy() for chunk in chunks] if to_numpy else chunks


def module_of(agent_id: str, *_, **__) -> str:
    return f"p{agent_id}"


def make_multi_agent_chunks(
    episode: int,
    lengths: list[int],
    *,
    lookback: int = 0,
    done: bool = True,
    every: int = 1,
    module: str | None = None,
) -> list[MultiAgentEpisode]:
    """Like `make_chunks`, with agent "a" acting at each step and "b" at every `every`-th.

    Agent "b" is episode `100 + episode`; steps are each agent's own. Each agent has a module of its
    own, unless one is given.
    """
    chunk = MultiAgentEpisode(
        id_=f"m{episode}",
        agent_module_ids={"a": module or "pa", "b": module or "pb"},
        agent_to_module_mapping_fn=(lambda *_, **__: module) if module else module_of,
    )
    numbers = {"a": episode, "b": 100 + episode}
    steps = {"a": 0, "b": 0}
    chunk.add_env_reset(observations={aid: observation(numbers[aid], 0) for aid in steps})
    chunks, t = [], 0
    acting = {"a", "b"}
    for i, length in enumerate(lengths):
        for _ in range(length):
            last = done and i == len(lengths) - 1 and t == sum(lengths) - 1
            actions = {aid: steps[aid] for aid in acting}
            seeing = {"a"} | ({"b"} if (t + 1) % every == 0 or last else set())
            for aid in acting:
                steps[aid] += 1
            chunk.add_env_step(
                {aid: observation(numbers[aid], steps[aid]) for aid in seeing},
                actions,
                {aid: reward(actions[aid]) for aid in actions},
                terminateds={"__all__": last},
            )
            acting = seeing
            t += 1
        chunks.append(chunk)
        if not chunk.is_done:
            chunk = chunk.cut(len_lookback_buffer=lookback)
    return [chunk.to_numpy() for chunk in chunks]


class Transition(NamedTuple):
    """One sampled transition, and the steps of its past that came with it."""

    episode: int
    t: int
    n_step: int
    num_past: int
    weight: float


def check_runs(
    sampled: SampledRuns, *, history_len: int, oldest: dict[int, int] | None = None, gamma=0.99
) -> list[Transition]:
    """Asserts that every entry of a sample is what its run's marked episode has there.

    Args:
        sampled: The sample.
        history_len: Steps before each run.
        oldest: The oldest step that is known of each episode, 0 of those that are left out.
        gamma: Discount of n-step returns.

    Returns:
        The transitions in their order.
    """
    runs, columns, found = sampled.runs, sampled.columns, []
    sizes = runs.num_past + runs.length + runs.n_step
    assert len(runs.obs) == len(runs.rewards) == len(runs.actions) == sizes.sum()
    assert {len(column) for column in columns.values()} == {len(sampled), runs.length.sum()}
    assert max(runs.length) <= runs.run_len
    for start, past, length, n in zip(
        runs.start, runs.num_past, runs.length, runs.n_step, strict=True
    ):
        number, first = (int(x) for x in runs.obs[start + past])
        assert past == min(first - (oldest or {}).get(number, 0), history_len), (number, first)
        steps = np.arange(first - past, first + length + n)
        here = slice(start, start + len(steps))
        marks = np.stack([np.full_like(steps, number), steps], axis=-1)
        np.testing.assert_array_equal(runs.obs[here], marks)
        np.testing.assert_array_equal(np.ravel(runs.actions[here])[:-1], steps[:-1])
        np.testing.assert_array_equal(runs.rewards[here][:-1], steps[:-1] + 0.5)
        for i in range(length):
            row, t = len(found), first + i
            assert columns["actions"][row] == t
            rewards = np.arange(t, t + n) + 0.5
            np.testing.assert_allclose(columns["rewards"][row], rewards @ gamma ** np.arange(n))
            assert columns["n_step"][row] == n
            found.append(Transition(number, t, int(n), int(past) + i, columns["weights"][row]))
    return found


def check_ends(sampled: SampledRuns, lengths: dict[int, int]) -> int:
    """Asserts that exactly the last transitions of done episodes are terminal; counts them.

    Args:
        sampled: The sample.
        lengths: The length of each done episode.
    """
    at = sampled.runs.transitions
    ends = sampled.runs.obs[at + np.repeat(sampled.runs.n_step, sampled.runs.length)]
    expected = [lengths.get(int(number)) == t for number, t in ends]
    np.testing.assert_array_equal(sampled.columns["terminateds"], expected)
    assert not sampled.columns["truncateds"].any()
    return sum(expected)


class OldestSteps:
    """Keeps, beside a buffer, the oldest time step that each stored episode still has."""

    def __init__(self, buffer) -> None:
        self.buffer = buffer
        self.oldest: dict[int, int] = {}
        self._slots: dict[str, int] = {}

    def add(self, chunks: list[SingleAgentEpisode]) -> None:
        for chunk in chunks:
            self.buffer.add(chunk)
            self._forget_evicted()
            slot = self.buffer.episode_id_to_index.get(chunk.id_)
            if slot is not None and self._slots.get(chunk.id_) != slot:
                self._slots[chunk.id_] = slot
                self.oldest[int(chunk.id_[1:])] = chunk.t_started - chunk.rewards.lookback

    def _forget_evicted(self) -> None:
        for id_ in set(self._slots) - set(self.buffer.episode_id_to_index):
            del self._slots[id_], self.oldest[int(id_[1:])]


class MarkedEnv(gym.Env):
    """Endless source of marked episodes: observations are (episode, t), rewards `t + 0.5`."""

    def __init__(self, config: dict) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1e6, (2,), np.float32)
        self.action_space = (
            gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
            if config.get("continuous")
            else gym.spaces.Discrete(2)
        )
        self.episode, self.t = config.worker_index * 1000, 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.t = self.episode + 1, 0
        return observation(self.episode, 0), {}

    def step(self, action):
        self.t += 1
        done = self.t >= 5 + 3 * (self.episode % 5)
        return observation(self.episode, self.t), reward(self.t - 1), done, False, {}
