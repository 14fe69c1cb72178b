"""What the replay buffers hand to the learners: the runs of a batch, each with its past.

    stored episode   [lookback | o_0  o_1  ...  o_t  ...  o_{t+T-1}  ...  o_{t+T-1+n}  ...]
    a run's steps            [o_{t-h}  ...      o_t  ...  o_{t+T-1}  ...  o_{t+T-1+n}]

The T transitions of a run share one stretch of steps: the `h` steps before the first of them, their
own, and the `n` steps up to the last one's next observation.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.spaces.space_utils import batch

from rllib_attention.new_stack.replay_buffers.timeline import Run
from rllib_attention.nn.packing import ranges


@dataclass(frozen=True)
class RunSteps:
    """The steps of several runs, one run after another, S in all.

    Attributes:
        obs: Observations, (S, ...), possibly nested.
        actions: The action taken at each step, (S, ...), possibly nested. That of a run's last
            step is not part of the sample: it repeats the one before.
        rewards: The raw rewards of the same actions, (S,).
        num_past: Steps before each run's first transition, (R,).
        length: Transitions of each run, (R,).
        n_step: Env steps that its transitions span, (R,).
        run_len: The longest run T that the buffer makes.
    """

    obs: Any
    actions: Any
    rewards: np.ndarray
    num_past: np.ndarray
    length: np.ndarray
    n_step: np.ndarray
    run_len: int

    @property
    def size(self) -> np.ndarray:
        """The number of each run's steps, (R,)."""
        return self.num_past + self.length + self.n_step

    @property
    def start(self) -> np.ndarray:
        """The index of each run's first step, (R,)."""
        return self.size.cumsum() - self.size

    @property
    def transitions(self) -> np.ndarray:
        """The index of each transition's first step, (B,)."""
        first = self.start + self.num_past
        return ranges(first, first + self.length)


class SampledRuns(SingleAgentEpisode):
    """B transitions that a buffer sampled as runs, for one module of one learner.

    RLlib's learner groups and connectors take it for an episode of B steps: actions, rewards
    (n-step returns) and extra model outputs (`weights`, `n_step`) are those of the transitions.
    It has no observations of its own: they are in `runs`.

    Args:
        runs: The steps.
        columns: Columns of the transitions, (B, ...) each.
        module_id: The module that acted in them; None in single-agent buffers.
    """

    def __init__(self, runs: RunSteps, columns: dict[str, Any], module_id: str | None):
        name = uuid.uuid4().hex
        ids = {} if module_id is None else {"agent_id": name, "multi_agent_episode_id": name}
        super().__init__(name, module_id=module_id, **ids)
        self.runs, self.columns = runs, columns
        self.t = len(columns[Columns.REWARDS])
        self.actions = InfiniteLookbackBuffer(columns[Columns.ACTIONS])
        self.rewards = InfiniteLookbackBuffer(columns[Columns.REWARDS])
        self.extra_model_outputs = {
            key: InfiniteLookbackBuffer(columns[key]) for key in ("weights", "n_step")
        }

    def get_observations(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses.

        Args:
            *args: Ignored.
            **kwargs: Ignored.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Replayed runs have no observations of their own, as steps of several episodes lie "
            "behind one another. A connector piece of yours finds them in `episode.runs.obs`, "
            "those of the transitions at `episode.runs.transitions`."
        )

    def slice(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses: a run is never split.

        Args:
            *args: Ignored.
            **kwargs: Ignored.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Replayed runs cannot be split between learners: expected as many learners as when "
            "the buffer was set up. Set `config.learners(num_learners=...)` before the algorithm "
            "is built."
        )

    def __getitem__(self, item: Any) -> NoReturn:
        """Refuses, as `slice` does."""
        self.slice(item)


def sample_runs(
    runs: Sequence[Run],
    weights: np.ndarray,
    *,
    history_len: int,
    run_len: int,
    gamma: float,
    module_id: str | None,
) -> SampledRuns:
    """Takes runs out of stored episodes.

    Args:
        runs: The runs, with B transitions in all.
        weights: Importance weights of the transitions, (B,).
        history_len: Steps before each run to return, if there are that many.
        run_len: The longest run that the buffer makes.
        gamma: Discount of n-step returns.
        module_id: The module; None in single-agent buffers.
    """
    num_past = [min(run.start + _lookback(run.episode), history_len) for run in runs]
    steps = RunSteps(
        _join([_obs(run, past) for run, past in zip(runs, num_past, strict=True)]),
        _join(_with_last("actions", runs, num_past)),
        _join(_with_last("rewards", runs, num_past)),
        np.array(num_past),
        np.array([run.length for run in runs]),
        np.array([run.n_step for run in runs]),
        run_len,
    )
    at = steps.transitions
    ends = [
        (end, run.episode.is_terminated, run.episode.is_truncated)
        for end, run in zip(steps.length.cumsum() - 1, runs, strict=True)
        if run.start + run.length - 1 + run.n_step == len(run.episode)
    ]
    terminated, truncated = np.zeros((2, len(at)), bool)
    for end, is_terminated, is_truncated in ends:
        terminated[end], truncated[end] = is_terminated, is_truncated
    n_step = np.repeat(steps.n_step, steps.length)
    columns = {
        Columns.ACTIONS: tree.map_structure(lambda leaf: leaf[at], steps.actions),
        Columns.REWARDS: _returns(steps.rewards, at, n_step, gamma),
        Columns.TERMINATEDS: terminated,
        Columns.TRUNCATEDS: truncated,
        "weights": weights,
        "n_step": n_step,
    }
    return SampledRuns(steps, columns, module_id)


def _returns(rewards: np.ndarray, at: np.ndarray, n_step: np.ndarray, gamma: float) -> np.ndarray:
    """Returns the discounted sum of each transition's next `n_step` rewards."""
    total = rewards[at]
    for ahead in range(1, int(n_step.max())):
        more = n_step > ahead
        total[more] += gamma**ahead * rewards[at[more] + ahead]
    return total


def _lookback(episode: SingleAgentEpisode) -> int:
    # A chunk whose earlier part was evicted still has its own lookback: that is true past, too.
    return min(episode.observations.lookback, episode.rewards.lookback)


def _obs(run: Run, past: int) -> Any:
    return _rows(run.episode.observations, run.start - past, run.start + run.length + run.n_step)


def _with_last(name: str, runs: Sequence[Run], num_past: Sequence[int]) -> list[Any]:
    """Returns actions or rewards of each run's steps, the last one twice."""
    parts = []
    for run, past in zip(runs, num_past, strict=True):
        buffer, stop = getattr(run.episode, name), run.start + run.length + run.n_step - 1
        parts += [_rows(buffer, run.start - past, stop), _rows(buffer, stop - 1, stop)]
    return parts


def _rows(buffer: InfiniteLookbackBuffer, first: int, stop: int) -> Any:
    # Index the data directly: `InfiniteLookbackBuffer.get` costs more than the slice itself.
    rows = slice(buffer.lookback + first, buffer.lookback + stop)
    if isinstance(buffer.data, np.ndarray):
        return buffer.data[rows]
    if buffer.finalized:
        return tree.map_structure(lambda leaf: leaf[rows], buffer.data)
    return batch(buffer.data[rows])


def _join(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)
