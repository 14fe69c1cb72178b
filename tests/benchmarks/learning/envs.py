"""Small environments for what POPGym lacks: counting, comparing, cues behind noise, fixed lags."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, flatdim, flatten
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, TransformObservation

EnvMaker = Callable[[dict[str, Any]], gym.Env]


class _Stream(gym.Env):
    """A drawn sequence of inputs; each step's answer is scored at once.

    Subclasses draw `_inputs` (T + 1, F) and `_answers` (T,), -1 where no answer counts. Right
    answers of an episode add up to +1, wrong ones to -1.

    Args:
        config: `length`, the number of answers T.
    """

    _num_features: int
    _num_answers: int

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config = config or {}
        self.length = int(self.config.get("length", 40))
        self.observation_space = Box(-np.inf, np.inf, (self._num_features,), np.float32)
        self.action_space = Discrete(self._num_answers)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draws a new sequence."""
        super().reset(seed=seed)
        self._time = 0
        self._inputs, self._answers = self._draw()
        self._share = 1.0 / max(1, int((self._answers >= 0).sum()))
        return self._inputs[0], {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Scores the answer to the latest input and shows the next one."""
        answer = self._answers[self._time]
        reward = 0.0 if answer < 0 else self._share * (1.0 if int(action) == answer else -1.0)
        self._time += 1
        return self._inputs[self._time], reward, self._time >= self.length, False, {}

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class CountSymbol(_Stream):
    """How often was this symbol shown within the last 30 steps: 0, 1, 2, or 3 times and more?

    Each episode draws its own frequencies, so that the step number alone says little.
    """

    NUM_SYMBOLS, MOST, SPAN = 8, 3, 30
    _num_features, _num_answers = NUM_SYMBOLS, MOST + 1

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        chances = self.np_random.dirichlet(np.ones(self.NUM_SYMBOLS))
        symbols = self.np_random.choice(self.NUM_SYMBOLS, size=self.length + 1, p=chances)
        counts = [
            int((symbols[max(0, t - self.SPAN) : t] == symbols[t]).sum())
            for t in range(self.length)
        ]
        inputs = np.eye(self.NUM_SYMBOLS, dtype=np.float32)[symbols]
        return inputs, np.minimum(counts, self.MOST)


class CompareWithMean(_Stream):
    """Is this number above the mean of the numbers of this episode so far?

    Numbers are drawn around an offset of the episode's own that is as wide as their own spread.
    """

    _num_features, _num_answers = 1, 2

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        numbers = self.np_random.normal(self.np_random.normal(), 1.0, self.length + 1)
        means = np.cumsum(numbers) / np.arange(1, self.length + 2)
        answers = (numbers[1:] > means[:-1])[: self.length].astype(int)
        # The first number has nothing to be compared with.
        return numbers.astype(np.float32)[:, None], np.concatenate(([-1], answers[:-1]))


class NoiseBeforeCue(_Stream):
    """Noise all along; at a random step a marked cue, some steps later a question about it.

    Channels: noise (4), the cue (+1 or -1, else 0), whether this step asks. Every question follows
    its cue by 3 to `delay` steps; then the next cue comes.
    """

    NUM_NOISE = 4
    _num_features, _num_answers = NUM_NOISE + 2, 2

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        inputs = self.np_random.normal(size=(self.length + 1, self._num_features))
        inputs[:, self.NUM_NOISE :] = 0.0
        answers = np.full(self.length, -1)
        most = int(self.config.get("delay", 25))
        time = int(self.np_random.integers(most))
        while True:
            asked = time + int(self.np_random.integers(3, most + 1))
            if asked >= self.length:
                return inputs.astype(np.float32), answers
            right = int(self.np_random.integers(2))
            inputs[time, self.NUM_NOISE] = 2.0 * right - 1.0
            inputs[asked, self.NUM_NOISE + 1] = 1.0
            answers[asked] = right
            time = asked + int(self.np_random.integers(1, most))


class DistantCues(_Stream):
    """A few cues at random early steps, then noise, at the end a question about each.

    Channels: noise (2), the cues (+1 or -1 at one step each, else 0), the questions (1 at one step
    each, else 0). Cues come in any order within the first tenth of the episode, and the questions
    in any order at its end: more than the first step must be remembered.
    """

    NUM_NOISE, NUM_CUES = 2, 3
    _num_features, _num_answers = NUM_NOISE + 2 * NUM_CUES, 2

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        cues, asked = self.NUM_NOISE, self.NUM_NOISE + self.NUM_CUES
        inputs = self.np_random.normal(size=(self.length + 1, self._num_features))
        inputs[:, cues:] = 0.0
        right = self.np_random.integers(2, size=self.NUM_CUES)
        early = max(self.NUM_CUES, self.length // 10)
        times = self.np_random.choice(early, size=self.NUM_CUES, replace=False)
        inputs[times, cues + np.arange(self.NUM_CUES)] = 2.0 * right - 1.0
        order = self.np_random.permutation(self.NUM_CUES)
        questions = self.length - self.NUM_CUES + np.arange(self.NUM_CUES)
        inputs[questions, asked + order] = 1.0
        answers = np.full(self.length, -1)
        answers[questions] = right[order]
        return inputs.astype(np.float32), answers


class RepeatLag(_Stream):
    """Which of four symbols was shown exactly `lag` steps ago?

    One past step counts: a plain window holds it, a dilated stack reads it through sums of several.
    """

    NUM_SYMBOLS = 4
    _num_features, _num_answers = NUM_SYMBOLS, NUM_SYMBOLS

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        lag = int(self.config.get("lag", 21))
        symbols = self.np_random.integers(self.NUM_SYMBOLS, size=self.length + 1)
        answers = np.full(self.length, -1)
        answers[lag:] = symbols[: self.length - lag]
        return np.eye(self.NUM_SYMBOLS, dtype=np.float32)[symbols], answers


class TMaze(_Stream):
    """A corridor whose first cell shows which way is right at the junction at its end.

    Channels: the cue (+1 or -1 at first, then 0), whether this is the junction.
    """

    _num_features, _num_answers = 2, 2

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        right = int(self.np_random.integers(2))
        inputs = np.zeros((self.length + 1, 2), np.float32)
        inputs[0, 0], inputs[self.length - 1, 1] = 2.0 * right - 1.0, 1.0
        answers = np.full(self.length, -1)
        answers[-1] = right
        return inputs, answers


class FlatInputs(gym.Wrapper):
    """Flattens observations, one-hot where they are discrete, for every model alike.

    Args:
        env: Any environment whose observations Gymnasium can flatten.
        previous_action: Whether the previous action joins the observation (zeros at first).
    """

    def __init__(self, env: gym.Env, *, previous_action: bool = False) -> None:
        super().__init__(env)
        self._joins_action = previous_action
        size = flatdim(env.observation_space)
        size += flatdim(env.action_space) if previous_action else 0
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode."""
        obs, info = self.env.reset(**kwargs)
        return self._flat(obs, None), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes a step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._flat(obs, action), float(reward), terminated, truncated, info

    def _flat(self, obs: Any, action: Any) -> np.ndarray:
        parts = [np.asarray(flatten(self.env.observation_space, obs), np.float32)]
        if self._joins_action:
            space = self.env.action_space
            zeros = np.zeros(flatdim(space), np.float32)
            parts.append(zeros if action is None else np.asarray(flatten(space, action)))
        return np.concatenate(parts).astype(np.float32)


def make_popgym(config: dict[str, Any]) -> gym.Env:
    """Makes the POPGym environment that the config names (`id`, `previous_action`)."""
    import popgym  # noqa: F401  (registers its environments)

    env = gym.make(f"popgym-{config['id']}-v0", disable_env_checker=True)
    return FlatInputs(env, previous_action=config.get("previous_action", False))


def make_masked(config: dict[str, Any]) -> gym.Env:
    """Makes an environment of Gymnasium's of which an agent sees some numbers only.

    Args:
        config: `id`, and `seen`: which numbers of an observation, such as those of positions.
    """
    seen = list(config["seen"])
    space = Box(-np.inf, np.inf, (len(seen),), np.float32)
    env = gym.make(config["id"])
    return TransformObservation(env, lambda obs: obs[seen].astype(np.float32), space)


def make_stacked(make: EnvMaker, frames: int) -> EnvMaker:
    """Lets an agent see its latest observations: what is done where there is no memory.

    Args:
        make: Makes the environment.
        frames: How many observations; the first one fills up what comes before it.
    """
    return lambda config: FlattenObservation(FrameStackObservation(make(config), frames))
