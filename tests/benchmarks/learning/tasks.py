"""The tasks, with what a score of 0 and of 1 means in each."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.learning import envs

CHOICE, CONFIRMATION = "choice", "confirmation"


@dataclass(frozen=True)
class Task:
    """One task of the benchmark.

    Attributes:
        make: Makes the environment from `env_config`.
        low: The return that counts as 0: a random policy's, or guessing.
        high: The return that counts as 1: the best possible or a very good one.
        bar: The return whose env steps and CPU seconds are reported.
        role: Whether defaults were chosen by this task, or confirmed on it.
        env_config: Passed to `make`.
        gamma: Discount.
        algorithm: "ppo", "sac" or "dqn".
    """

    make: envs.EnvMaker
    low: float
    high: float
    bar: float
    role: str = CONFIRMATION
    env_config: dict[str, Any] = field(default_factory=dict)
    gamma: float = 0.99
    algorithm: str = "ppo"

    def score(self, value: float) -> float:
        """Returns a return on the scale of `low` and `high`."""
        return (value - self.low) / (self.high - self.low)


def _popgym(
    name: str, low: float, high: float, bar: float, role: str = CONFIRMATION, **kwargs: Any
) -> Task:
    env_config = {"id": name, "previous_action": kwargs.pop("previous_action", False)}
    return Task(envs.make_popgym, low, high, bar, role, env_config, **kwargs)


def _masked(
    name: str, seen: Iterable[int], low: float, high: float, bar: float, algorithm: str = "sac"
) -> Task:
    env_config = {"id": name, "seen": list(seen)}
    return Task(envs.make_masked, low, high, bar, env_config=env_config, algorithm=algorithm)


_ACTS = {"previous_action": True}

TASKS: dict[str, Task] = {
    # Copying: one step of the past says all.
    "repeat_first_easy": _popgym("RepeatFirstEasy", -0.5, 1.0, 0.9, CHOICE),
    "repeat_first_medium": _popgym("RepeatFirstMedium", -0.5, 1.0, 0.9),
    "repeat_previous_easy": _popgym("RepeatPreviousEasy", -0.5, 1.0, 0.9, gamma=0.5),
    "repeat_previous_medium": _popgym("RepeatPreviousMedium", -0.5, 1.0, 0.9, gamma=0.5),
    "t_maze_10": Task(envs.TMaze, 0.0, 1.0, 0.9, env_config={"length": 11}),
    "t_maze_30": Task(envs.TMaze, 0.0, 1.0, 0.9, env_config={"length": 31}),
    "noise_before_cue": Task(
        envs.NoiseBeforeCue, 0.0, 1.0, 0.9, env_config={"length": 60, "delay": 25}
    ),
    # Cues that lie far back: more than one, or at a fixed distance.
    "distant_cues_100": Task(envs.DistantCues, 0.0, 1.0, 0.9, env_config={"length": 103}),
    "distant_cues_300": Task(envs.DistantCues, 0.0, 1.0, 0.9, env_config={"length": 303}),
    "distant_cues_1000": Task(envs.DistantCues, 0.0, 1.0, 0.9, env_config={"length": 1_003}),
    "repeat_lag_21": Task(envs.RepeatLag, -0.5, 1.0, 0.9, env_config={"length": 60}, gamma=0.5),
    "repeat_lag_50": Task(
        envs.RepeatLag, -0.5, 1.0, 0.9, env_config={"length": 120, "lag": 50}, gamma=0.5
    ),
    # Control: velocities from positions, positions from velocities.
    "position_cartpole_easy": _popgym("PositionOnlyCartPoleEasy", 0.1, 1.0, 0.8, CHOICE),
    "position_cartpole_medium": _popgym("PositionOnlyCartPoleMedium", 0.05, 1.0, 0.6),
    "velocity_cartpole_easy": _popgym("VelocityOnlyCartpoleEasy", 0.1, 1.0, 0.8),
    "velocity_cartpole_medium": _popgym("VelocityOnlyCartpoleMedium", 0.05, 1.0, 0.6),
    "noisy_pendulum_easy": _popgym("NoisyPositionOnlyPendulumEasy", 0.2, 0.9, 0.75),
    "noisy_pendulum_medium": _popgym("NoisyPositionOnlyPendulumMedium", 0.2, 0.9, 0.65),
    "stateless_cartpole": _masked("CartPole-v1", (0, 2), 20.0, 500.0, 350.0, algorithm="ppo"),
    # Most of the past is noise, or the whole of it counts.
    "higher_lower_easy": _popgym("HigherLowerEasy", 0.0, 0.5, 0.48, CHOICE),
    "higher_lower_medium": _popgym("HigherLowerMedium", 0.0, 0.5, 0.48),
    "count_recall_easy": _popgym("CountRecallEasy", -0.93, 0.0, -0.65, CHOICE),
    "count_symbol": Task(envs.CountSymbol, -0.5, 1.0, 0.5),
    "compare_with_mean": Task(envs.CompareWithMean, 0.0, 0.6, 0.5),
    # Search: what was tried already.
    "bandit_easy": _popgym("MultiarmedBanditEasy", 0.0, 0.8, 0.5, **_ACTS),
    "bandit_medium": _popgym("MultiarmedBanditMedium", 0.0, 0.8, 0.4, **_ACTS),
    "mine_sweeper_easy": _popgym("MineSweeperEasy", -0.3, 1.0, 0.3, CHOICE, **_ACTS),
    "mine_sweeper_medium": _popgym("MineSweeperMedium", -0.3, 1.0, 0.0, **_ACTS),
    "battleship_easy": _popgym("BattleshipEasy", -0.5, 1.0, 0.2, **_ACTS),
    "battleship_medium": _popgym("BattleshipMedium", -0.5, 1.0, 0.0, **_ACTS),
    "concentration_easy": _popgym("ConcentrationEasy", -0.2, 1.0, 0.0, **_ACTS),
    "concentration_medium": _popgym("ConcentrationMedium", -0.2, 1.0, 0.0, **_ACTS),
    "labyrinth_explore_easy": _popgym("LabyrinthExploreEasy", -0.3, 1.0, 0.5, **_ACTS),
    "labyrinth_explore_medium": _popgym("LabyrinthExploreMedium", -0.6, 1.0, 0.0, **_ACTS),
    "labyrinth_escape_easy": _popgym("LabyrinthEscapeEasy", -1.0, 1.0, 0.5, **_ACTS),
    "labyrinth_escape_medium": _popgym("LabyrinthEscapeMedium", -1.0, 1.0, 0.0, **_ACTS),
    # Replay-based algorithms.
    "sac_masked_pendulum": _masked("Pendulum-v1", (0, 1), -1200.0, -150.0, -250.0),
    "sac_masked_cart_pole": _masked("InvertedPendulum-v5", (0, 1), 5.0, 1_000.0, 800.0),
    "sac_masked_half_cheetah": _masked("HalfCheetah-v5", range(8), -250.0, 3_000.0, 1_000.0),
    "dqn_repeat_previous_easy": _popgym(
        "RepeatPreviousEasy", -0.5, 1.0, 0.5, gamma=0.5, algorithm="dqn"
    ),
}
