"""The tasks of the example scripts: small environments of our own, and others made ready.

Each function that makes an environment imports what it needs itself, so that a script asks only for
the packages of its own task.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TimeLimit
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger


class TMaze(gym.Env):
    """A corridor that forks at its end; which way is right is shown at the first step only.

    The corridor leads one way: whatever the agent does, it walks on by one cell. Only at the
    junction does its action count, and only there is it rewarded: +1 for the side that the cue
    named, -1 for the other. So a policy without memory gets 0 on average (half of the episodes
    are successes), one that carries the cue over `corridor_length` steps gets +1.

    Observations are `[cue, at_junction]`: the cue is -1 (left) or +1 (right) at the first step and
    0 afterwards. Actions are 0 (left) and 1 (right). The last step's info holds `success`.

    Args:
        config: `corridor_length` (default 10), the number of steps between cue and choice.

    Raises:
        ValueError: If the corridor is shorter than one step.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.corridor_length = _corridor_length(config)
        self.observation_space = Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = Discrete(2)
        self._position = 0
        self._right_side = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the agent at the start and draws the right side."""
        super().reset(seed=seed)
        self._position = 0
        self._right_side = int(self.np_random.integers(2))
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Walks on, or ends the episode at the junction."""
        if self._position < self.corridor_length:
            self._position += 1
            return self._observation(), 0.0, False, False, {}
        success = int(action) == self._right_side
        return self._observation(), 1.0 if success else -1.0, True, False, {"success": success}

    def _observation(self) -> np.ndarray:
        cue = 2.0 * self._right_side - 1.0 if self._position == 0 else 0.0
        at_junction = float(self._position == self.corridor_length)
        return np.array([cue, at_junction], np.float32)


class PassiveTMaze(gym.Env):
    """A T-maze that must be walked: four moves, a cue at the first step only, no time to lose.

    The passive T-maze of Ni et al. 2023, "When Do Transformers Shine in RL?" (section 4.1): an
    episode has just as many steps as lead through the corridor and to one of the two goals. Each
    step that begins behind schedule costs 1 / corridor_length; the last one pays 1 at the right
    goal. So the best return is 1, that of walking without memory 0.5, of standing still -1.

    Observations are `[junction or goal, y]`; at the start, and the first step only, `y` is the
    goal's (-1 or +1). Along the corridor all are zeros, the start included when it is come upon
    again. Actions are 0 (on), 1 (up), 2 (back), 3 (down). The last step's info holds `success`.

    Args:
        config: `corridor_length` (default 10), the number of steps to the junction.

    Raises:
        ValueError: If the corridor is shorter than one step.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.corridor_length = _corridor_length(config)
        self.observation_space = Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = Discrete(4)
        self._x = self._y = self._goal = self._time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the agent at the start and draws the goal."""
        super().reset(seed=seed)
        self._x = self._y = self._time = 0
        self._goal = int(self.np_random.choice((-1, 1)))
        return np.array([0.0, self._goal], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves, unless a wall is in the way."""
        self._time += 1
        self._move(*((1, 0), (0, 1), (-1, 0), (0, -1))[int(action)])
        at_end = float(self._x == self.corridor_length)
        observation = np.array([at_end, self._y], np.float32)
        if self._time <= self.corridor_length:
            behind = self._x < self._time
            return observation, -behind / self.corridor_length, False, False, {}
        success = self._y == self._goal
        return observation, float(success), True, False, {"success": success}

    def _move(self, x: int, y: int) -> None:
        if x and self._y == 0:
            self._x = min(max(self._x + x, 0), self.corridor_length)
        if y and self._x == self.corridor_length:
            self._y = min(max(self._y + y, -1), 1)


def _corridor_length(config: dict[str, Any] | None) -> int:
    length = int((config or {}).get("corridor_length", 10))
    if length < 1:
        raise ValueError(f"corridor_length must be at least 1, got {length}")
    return length


class BanditEpisodes(gym.Env):
    """Each episode is a new bandit: arms that pay 1 with a chance that the agent must find out.

    The chances are drawn anew, uniformly between 0 and 1, when an episode begins, so nothing about
    the arms can be learned over training except how to try them out and settle: reinforcement
    learning within the episode. The observation is always 0. A policy that remembers its actions
    and rewards can use them; all others get `pulls / 2` on average.

    Args:
        config: `num_arms` (default 5) and `pulls` per episode (default 40).
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = config or {}
        self.num_arms = int(config.get("num_arms", 5))
        self.pulls = int(config.get("pulls", 40))
        self.observation_space = Box(0.0, 1.0, (1,), np.float32)
        self.action_space = Discrete(self.num_arms)
        self._chances = np.zeros(self.num_arms)
        self._pulled = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draws a new bandit."""
        super().reset(seed=seed)
        self._chances = self.np_random.uniform(size=self.num_arms)
        self._pulled = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Pulls an arm."""
        reward = float(self.np_random.uniform() < self._chances[int(action)])
        self._pulled += 1
        return np.zeros(1, np.float32), reward, self._pulled >= self.pulls, False, {}


class TwoAgentRecall(MultiAgentEnv):
    """Two agents each watch a stream of symbols and must name the one shown `delay` steps ago.

    They are paid as a team: each gets half of the mean of both scores (+1 right, -1 wrong), spread
    over the steps that count. The episode's return, summed over both agents, therefore lies between
    -1 and 1; guessing gives `2 / num_symbols - 1`. Both agents act at every step, and nothing tells
    them apart, so that they can share one policy.

    Args:
        config: `delay` (default 3), `num_symbols` (default 4), `episode_length` (default 32).
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__()
        config = config or {}
        self.delay = int(config.get("delay", 3))
        self.num_symbols = int(config.get("num_symbols", 4))
        self.episode_length = int(config.get("episode_length", 32))
        self.agents = self.possible_agents = ["left", "right"]
        space = Box(0.0, 1.0, (self.num_symbols,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, space)
        self.action_spaces = {agent: Discrete(self.num_symbols) for agent in self.agents}
        self._rng = np.random.default_rng()
        self._symbols = np.zeros((2, self.episode_length + 1), np.int64)
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draws both streams."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._symbols = self._rng.integers(self.num_symbols, size=self._symbols.shape)
        self._step = 0
        return self._observations(), {}

    def step(
        self, action_dict: dict[str, int]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict]:
        """Scores both answers and shows the next symbols."""
        reward = self._team_reward([int(action_dict[agent]) for agent in self.agents]) / 2
        self._step += 1
        done = {"__all__": self._step >= self.episode_length}
        rewards = dict.fromkeys(self.agents, reward)
        return self._observations(), rewards, done, {"__all__": False}, {}

    def _team_reward(self, answers: list[int]) -> float:
        if self._step < self.delay:
            return 0.0  # There is nothing yet to remember.
        right = self._symbols[:, self._step - self.delay] == answers
        return float((2.0 * right - 1.0).mean()) / (self.episode_length - self.delay)

    def _observations(self) -> dict[str, np.ndarray]:
        eye = np.eye(self.num_symbols, dtype=np.float32)
        return {
            agent: eye[symbol]
            for agent, symbol in zip(self.agents, self._symbols[:, self._step], strict=True)
        }


class MiniGridImage(gym.ObservationWrapper):
    """Gives MiniGrid's 7 x 7 view as planes of 0 and 1, one for each kind of object.

    Of MiniGrid's seven actions the memory task needs turning left, turning right and going forward.
    """

    def __init__(self, env: gym.Env) -> None:
        from minigrid.core.constants import OBJECT_TO_IDX

        super().__init__(env)
        # MiniGrid's codes of objects are numbers without an order: a key is 5, a ball 6.
        self._planes = np.eye(max(OBJECT_TO_IDX.values()) + 1, dtype=np.float32)
        shape = (*env.observation_space["image"].shape[:2], len(self._planes))
        self.observation_space = Box(0.0, 1.0, shape, np.float32)
        self.action_space = Discrete(3)

    def observation(self, observation: dict[str, Any]) -> np.ndarray:
        """Spreads the objects over planes."""
        return self._planes[observation["image"][..., 0]]


def make_repeat_previous(config: dict[str, Any]) -> gym.Env:
    """Makes POPGym's RepeatPrevious in the `difficulty` that the config names."""
    import popgym  # noqa: F401  (registers its environments)

    name = f"popgym-RepeatPrevious{config.get('difficulty', 'easy').capitalize()}-v0"
    return gym.make(name, disable_env_checker=True)


def make_minigrid_memory(config: dict[str, Any]) -> gym.Env:
    """Makes MiniGrid's memory task of the `size` that the config names."""
    import minigrid  # noqa: F401  (registers its environments)

    return MiniGridImage(gym.make(f"MiniGrid-MemoryS{config.get('size', 7)}-v0"))


def make_stateless_cartpole(config: dict[str, Any]) -> gym.Env:
    """Makes CartPole without velocities, limited to 500 steps as in CartPole-v1."""
    from ray.rllib.examples.envs.classes.stateless_cartpole import StatelessCartPole

    return TimeLimit(StatelessCartPole(config), max_episode_steps=500)


def make_masked_pendulum(config: dict[str, Any]) -> gym.Env:
    """Makes Pendulum without the angular velocity, limited to 200 steps as in Pendulum-v1."""
    from ray.rllib.examples.envs.classes.stateless_pendulum import StatelessPendulum

    return TimeLimit(StatelessPendulum(config), max_episode_steps=200)


def log_success(
    *, episode: SingleAgentEpisode, metrics_logger: MetricsLogger, **kwargs: Any
) -> None:
    """Logs the success rate over the last 100 episodes (for `config.callbacks(on_episode_end=)`).

    Args:
        episode: The episode that has ended; its last info holds `success`.
        metrics_logger: The runner's metrics.
        **kwargs: Whatever else RLlib passes; not used.
    """
    success = float(episode.get_infos(-1)["success"])
    metrics_logger.log_value("success_rate", success, reduce="mean", window=100)
