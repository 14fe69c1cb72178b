"""RLlib's four episode replay buffers, with runs of transitions and their past as samples.

Nothing of a past is stored: the buffers keep one observation per env step, as RLlib's do, and take
each run out of its stored episode when they sample (`timeline.py` says which ones).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.typing import AgentID, ModuleID

from rllib_attention.compat import (
    num_stored_steps,
    position_of_leaf,
    restore_sample_indices,
    sample_indices,
    segment_trees,
    set_last_sampled,
    update_sample_metrics,
)
from rllib_attention.new_stack.replay_buffers.lookback import (
    count_from_stored_start,
    without_agent_lookbacks,
    without_lookback,
)
from rllib_attention.new_stack.replay_buffers.priorities import Leaves, run_weights
from rllib_attention.new_stack.replay_buffers.sample_metrics import SampleMetrics
from rllib_attention.new_stack.replay_buffers.sampled_runs import SampledRuns, sample_runs
from rllib_attention.new_stack.replay_buffers.timeline import AgentTimeline, Place, Run, Timeline

Episode: TypeAlias = SingleAgentEpisode | MultiAgentEpisode
RunLen: TypeAlias = int | Mapping[ModuleID, int]
NStep: TypeAlias = int | tuple[int, int]

_MAX_DRAWS = 100_000  # of which RLlib's rule accepts one with the first or second, as a rule


def check_history_len(history_len: int) -> int:
    """Returns `history_len` if it is an int of at least 0.

    Raises:
        ValueError: If `history_len` is not an int, or is negative.
    """
    return _check_int("history_len", history_len, 0, "Use `AttentionConfig.history_len`.")


def check_run_len(run_len: RunLen) -> RunLen:
    """Returns `run_len` if it is an int of at least 1, or these by module.

    Raises:
        ValueError: If it is something else.
    """
    for length in run_len.values() if isinstance(run_len, Mapping) else [run_len]:
        _check_int("run_len", length, 1, "Use the `max_seq_len` of `AttentionConfig`.")
    return run_len


def _check_int(name: str, value: Any, minimum: int, fix: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"`{name}` must be an int >= {minimum}, but got {value!r}. {fix}")
    return value


# To type checkers, the RLlib buffer that a mixin is put in front of.
_Base: Any = object


class _RunsMixin(_Base):
    """Makes one of RLlib's episode replay buffers return runs with their past.

    Args:
        *args: Positional arguments of RLlib's buffer.
        history_len: Number of steps before each run to return.
        run_len: Transitions T of a run; or by module, 1 for those that are left out.
        num_shards: Number of learners that share a sample.
        **kwargs: Keyword arguments of RLlib's buffer.

    Raises:
        ValueError: If `history_len` or `run_len` is not an int, or is too small.
    """

    # Without instance slots of its own, a subclass keeps its parent's memory layout, so that
    # `upgrade_replay_buffer` may assign it to a built buffer's `__class__`. What the methods assign
    # lies in the `__dict__` of RLlib's buffer, which mypy does not see: hence `ignore[misc]`.
    __slots__ = ()

    def __init__(
        self,
        *args: Any,
        history_len: int,
        run_len: RunLen = 1,
        num_shards: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.set_runs(history_len, run_len, num_shards)

    def set_runs(self, history_len: int, run_len: RunLen, num_shards: int) -> None:
        """Sets what samples are made of.

        Args:
            history_len: Number of steps before each run to return.
            run_len: Transitions T of a run; or by module, 1 for those that are left out.
            num_shards: Number of learners that share a sample.

        Raises:
            ValueError: If `history_len` or `run_len` is not an int, or is too small.
        """
        self.history_len = check_history_len(history_len)  # type: ignore[misc]
        self.run_len = check_run_len(run_len)  # type: ignore[misc]
        self.num_shards = num_shards  # type: ignore[misc]

    def add(self, episodes: Episode | Iterable[Episode], *args: Any, **kwargs: Any) -> None:
        """Adds episodes or chunks of episodes, as RLlib's buffer does.

        Args:
            episodes: One episode or several.
            *args: Further positional arguments of RLlib's `add`.
            **kwargs: Further keyword arguments of RLlib's `add`.
        """
        episodes = force_list(episodes)
        num_evictable = self._num_evictable(sum(episode.env_steps() for episode in episodes))
        super().add([self._strip(episode, num_evictable) for episode in episodes], *args, **kwargs)

    def sample(
        self,
        num_items: int | None = None,
        *,
        n_step: NStep | None = 1,
        gamma: float = 0.99,
        beta: float | None = 0.0,
        batch_size_B: int | None = None,  # noqa: N803
        batch_length_T: int | None = None,  # noqa: N803
        min_batch_length_T: int = 0,  # noqa: N803
        replay_mode: str = "independent",
        modules_to_sample: Iterable[ModuleID] | None = None,
        include_infos: bool = False,
        include_extra_model_outputs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Samples transitions, as RLlib's buffer does, but in runs and with their past.

        Args:
            num_items: Number of transitions B.
            n_step: Env steps that a transition spans, or a range `(low, high)` to draw them from
                for each slot of a batch, `high` left out.
            gamma: Discount of n-step returns.
            beta: Exponent of the importance weights; prioritised buffers only.
            batch_size_B: As `num_items`.
            batch_length_T: Must not be set: `run_len` says how long runs are.
            min_batch_length_T: Must be 0.
            replay_mode: Must be "independent".
            modules_to_sample: The modules of a multi-agent buffer to sample for; None for all.
            include_infos: Must be False.
            include_extra_model_outputs: Must be False.
            **kwargs: Ignored, as RLlib's buffers ignore them.

        Returns:
            A `SampledRuns` for each module and learner, with B / `num_shards` transitions each.

        Raises:
            ValueError: If an option is set that runs do not have, if B cannot be shared equally by
                the learners, or if no stored episode has `n_step` steps.
        """
        self._check_options(
            batch_length_T=batch_length_T,
            min_batch_length_T=min_batch_length_T,
            include_infos=include_infos,
            include_extra_model_outputs=include_extra_model_outputs,
        )
        self._check_replay_mode(replay_mode)
        size = num_items or batch_size_B or self.batch_size_B
        if size % self.num_shards:
            raise ValueError(
                f"The batch size must be a multiple of the {self.num_shards} learners that share "
                f"it, but got {size}. Use `config.training(train_batch_size_per_learner=...)`."
            )
        sampled, metrics = [], SampleMetrics(size)
        for module_id in modules_to_sample or self._sampled_modules():
            drawn: list[Run] = []
            for _ in range(self.num_shards):
                runs, weights = self._draw_runs(
                    module_id, size // self.num_shards, n_step or 1, beta or 0.0, metrics
                )
                sampled.append(self._take(runs, weights, gamma, module_id))
                drawn += runs
            self._remember(drawn, module_id)
            metrics.count(drawn, module_id)
        self.sampled_timesteps += size
        update_sample_metrics(self, metrics.as_dict())
        return sampled

    def _draw_runs(
        self,
        module_id: ModuleID,
        size: int,
        n_step: NStep,
        beta: float,
        metrics: SampleMetrics,
    ) -> tuple[list[Run], np.ndarray]:
        """Fills a learner's part of a batch, slot by slot. See `timeline.py`."""
        timeline, run_len = self._timeline(module_id), self._run_len(module_id)
        runs: list[Run] = []
        weights = []
        for first in range(0, size, run_len):
            count = min(run_len, size - first)
            place, start, n = self._draw(module_id, timeline, n_step, metrics)
            if count > 1:
                back = int(self.rng.integers(count))
                place, start = timeline.back(place, start, back, n)
            runs += timeline.walk(place, start, count, n)
            weights.append(self._weights(module_id, timeline, (place, start, n), count, beta))
        return runs, np.concatenate(weights)

    def _draw(
        self,
        module_id: ModuleID,
        timeline: Timeline,
        n_step: NStep,
        metrics: SampleMetrics,
    ) -> tuple[Place, int, int]:
        """Draws one transition by RLlib's rule: its episode, step, and how many steps it spans."""
        for _ in range(_MAX_DRAWS):
            index, *agent_id, start = self._draw_index(module_id)
            place = index - self.get_num_episodes_evicted(), (agent_id or [None])[0]
            n = n_step if isinstance(n_step, int) else int(self.rng.integers(*n_step))
            if start + n <= len(timeline.episode(place)):
                return place, start, n
            metrics.count_resample(module_id, place[1])
        raise ValueError(
            f"No stored episode is as long as `n_step` {n_step}. Use `config.training(n_step=1)`, "
            "or let more steps be sampled before learning starts "
            "(`num_steps_sampled_before_learning_starts`)."
        )

    def _take(
        self, runs: list[Run], weights: np.ndarray, gamma: float, module_id: ModuleID
    ) -> SampledRuns:
        return sample_runs(
            runs,
            weights,
            history_len=self.history_len,
            run_len=self._run_len(module_id),
            gamma=gamma,
            module_id=None if module_id == DEFAULT_MODULE_ID else module_id,
        )

    def _run_len(self, module_id: ModuleID) -> int:
        lengths = self.run_len
        return lengths.get(module_id, 1) if isinstance(lengths, Mapping) else lengths

    def _weights(
        self,
        module_id: ModuleID,
        timeline: Timeline,
        first: tuple[Place, int, int],
        count: int,
        beta: float,
    ) -> np.ndarray:
        """Returns the importance weights of a slot's transitions, from the first one on."""
        return np.ones(count)

    def _remember(self, runs: list[Run], module_id: ModuleID) -> None:
        """Keeps in mind whose priorities the next `update_priorities` brings."""

    def _sampled_modules(self) -> Iterable[ModuleID]:
        return [DEFAULT_MODULE_ID]

    def _timeline(self, module_id: ModuleID) -> Timeline:
        return Timeline(self.episodes)

    def _draw_index(self, module_id: ModuleID) -> tuple:
        """Returns (episode, step), or (episode, agent, step)."""
        indices = sample_indices(self)
        return indices[self.rng.integers(len(indices))]

    def _check_options(self, **options: Any) -> None:
        for name, value in options.items():
            if value:
                raise ValueError(
                    f"`{name}` must not be set, but got {value!r}: samples are runs of `run_len` "
                    f"transitions with observations, actions and rewards. Leave out `{name}`."
                )

    def _check_replay_mode(self, replay_mode: str) -> None:
        pass

    def _stored(self, episode_id: str) -> Any:
        return self.episodes[self.episode_id_to_index[episode_id] - self.get_num_episodes_evicted()]

    def _strip(self, episode: Episode, num_evictable: int) -> Episode:
        """Drops the lookback of a chunk that will be appended to its stored earlier part.

        RLlib's `add` deep-copies each chunk, lookback included, and then throws the lookback away.
        """
        index = self.episode_id_to_index.get(episode.id_)
        # The earlier part may be gone by the time that RLlib adds this chunk. Then the chunk
        # becomes an episode of its own, and its lookback is the only past that it has.
        if index is None or index - self.get_num_episodes_evicted() < num_evictable:
            return episode
        return self._strip_appended(episode)

    def _strip_appended(self, episode: Episode) -> Episode:
        return without_lookback(episode)

    def _num_evictable(self, num_new_steps: int) -> int:
        """Returns how many of the oldest episodes may be evicted when this many steps are added."""
        excess = num_stored_steps(self) + num_new_steps - self.capacity
        for count, episode in enumerate(self.episodes):
            if excess <= 0:
                return count
            excess -= episode.env_steps()
        return len(self.episodes)


class _PrioritizedMixin(_RunsMixin):
    """What the two prioritised buffers share."""

    __slots__ = ()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Args:
            state: The state of this buffer or of RLlib's.
        """
        super().set_state(state)
        self.__dict__.pop("_leaves", None)

    def _leaves_of(self, module_id: ModuleID) -> Leaves:
        # Not made in `__init__`, which an upgraded buffer has behind it.
        by_module: dict = self.__dict__.setdefault("_leaves", {})
        leaves = by_module.setdefault(module_id, Leaves())
        leaves.update(self._indices_of(module_id), self.get_num_episodes_evicted())
        return leaves

    def _weights(
        self,
        module_id: ModuleID,
        timeline: Timeline,
        first: tuple[Place, int, int],
        count: int,
        beta: float,
    ) -> np.ndarray:
        place, start, n_step = first
        place, start = timeline.back(place, start, count - 1, n_step)
        around = timeline.walk(place, start, 3 * count - 2, n_step)
        leaves = self._leaves_of(module_id).of(around, self.get_num_episodes_evicted())
        sums, lowest = self._trees(module_id)
        return run_weights(leaves, count, sums, lowest.min(), beta)

    def _draw_index(self, module_id: ModuleID) -> tuple:
        sums, _ = self._trees(module_id)
        leaf = sums.find_prefixsum_idx(self.rng.random() * sums.sum())
        return self._indices_of(module_id)[self._sample_index(module_id)[leaf]][:-1]

    def _trees(self, module_id: ModuleID) -> tuple[Any, Any]:
        return segment_trees(self)

    def _indices_of(self, module_id: ModuleID) -> list[tuple]:
        return sample_indices(self)

    def _sample_index(self, module_id: ModuleID) -> dict[int, int]:
        return position_of_leaf(self)

    def _remember(self, runs: list[Run], module_id: ModuleID) -> None:
        leaves = self._leaves_of(module_id).of(runs, self.get_num_episodes_evicted())
        set_last_sampled(self, leaves)


class _MultiAgentMixin(_RunsMixin):
    """What the two multi-agent buffers share."""

    __slots__ = ()

    sampled_timesteps_per_module: dict[str, int]

    def add(self, episodes: Episode | Iterable[Episode], *args: Any, **kwargs: Any) -> None:
        """Adds multi-agent episodes or chunks of episodes, as RLlib's buffer does.

        Args:
            episodes: One episode or several.
            *args: Further positional arguments of RLlib's `add`.
            **kwargs: Further keyword arguments of RLlib's `add`.
        """
        starts: dict[tuple[str, AgentID], int] = {}
        recounted = [self._recount(episode, starts) for episode in force_list(episodes)]
        super().add(recounted, *args, **kwargs)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Args:
            state: The state of this buffer or of RLlib's.
        """
        super().set_state(state)
        # RLlib restores these counts with a default of `[]`: sampling a module for the first time
        # after that would fail.
        counts = defaultdict(int, self.sampled_timesteps_per_module)
        self.sampled_timesteps_per_module = counts  # type: ignore[misc]

    def _check_replay_mode(self, replay_mode: str) -> None:
        if replay_mode != "independent":
            raise ValueError(
                f"`replay_mode` must be 'independent', but got {replay_mode!r}: RLlib's "
                "synchronized samples are arrays without their episodes, so that they have no "
                'history to attend to. Use `buffer.sample(..., replay_mode="independent")`.'
            )

    def _sampled_modules(self) -> Iterable[ModuleID]:
        return set(self.get_module_ids())

    def _timeline(self, module_id: ModuleID) -> Timeline:
        return AgentTimeline(self.episodes, module_id)

    def _draw_index(self, module_id: ModuleID) -> tuple:
        indices = sample_indices(self, module_id)
        return indices[self.rng.integers(len(indices))]

    def _remember(self, runs: list[Run], module_id: ModuleID) -> None:
        self.sampled_timesteps_per_module[module_id] += sum(run.length for run in runs)

    def _recount(
        self, episode: MultiAgentEpisode, starts: dict[tuple[str, AgentID], int]
    ) -> MultiAgentEpisode:
        """Counts a chunk's steps from where its agents' stored parts start.

        `starts` remembers the agents of earlier chunks in the same call of `add`.
        """
        is_stored = episode.id_ in self.episode_id_to_index
        stored = self._stored(episode.id_).agent_episodes if is_stored else {}
        for agent_id, agent_episode in episode.agent_episodes.items():
            start = stored.get(agent_id, agent_episode).t_started
            starts.setdefault((episode.id_, agent_id), start)
        return count_from_stored_start(
            episode, {agent_id: starts[episode.id_, agent_id] for agent_id in episode.agent_ids}
        )

    def _strip_appended(self, episode: MultiAgentEpisode) -> MultiAgentEpisode:
        return without_agent_lookbacks(episode, self._stored(episode.id_))


class HistoryEpisodeReplayBuffer(_RunsMixin, EpisodeReplayBuffer):
    """`EpisodeReplayBuffer` whose samples are runs with their past.

    Example:
        >>> from ray.rllib.env.single_agent_episode import SingleAgentEpisode
        >>> from rllib_attention.new_stack.replay_buffers import HistoryEpisodeReplayBuffer
        >>> buffer = HistoryEpisodeReplayBuffer(capacity=100, history_len=2, run_len=4)
        >>> buffer.add(SingleAgentEpisode(
        ...     observations=[0, 1, 2, 3, 4], actions=[0, 1, 2, 3], rewards=[0.0, 1.0, 2.0, 3.0],
        ...     len_lookback_buffer=0, terminated=True,
        ... ))
        >>> [sampled] = buffer.sample(num_items=8, sample_episodes=True)
        >>> len(sampled), sorted(sampled.get_actions())
        (8, [0, 0, 1, 1, 2, 2, 3, 3])
    """

    def sample(self, *args: Any, sample_episodes: bool = False, **kwargs: Any) -> Any:
        """Samples as `_RunsMixin.sample`, or arrays as RLlib's buffer does.

        Args:
            *args: Positional arguments of `sample`.
            sample_episodes: Whether to sample runs. Else, arrays of sequences without a past.
            **kwargs: Keyword arguments of `sample`.

        Returns:
            A list of `SampledRuns`, or a dict of arrays.
        """
        if not sample_episodes:
            return EpisodeReplayBuffer.sample(self, *args, **kwargs)
        return super().sample(*args, **kwargs)


class HistoryPrioritizedEpisodeReplayBuffer(_PrioritizedMixin, PrioritizedEpisodeReplayBuffer):
    """`PrioritizedEpisodeReplayBuffer` whose samples are runs with their past."""


class HistoryMultiAgentEpisodeReplayBuffer(_MultiAgentMixin, MultiAgentEpisodeReplayBuffer):
    """`MultiAgentEpisodeReplayBuffer` whose samples are runs with their agent's past."""


class HistoryMultiAgentPrioritizedEpisodeReplayBuffer(
    _MultiAgentMixin, _PrioritizedMixin, MultiAgentPrioritizedEpisodeReplayBuffer
):
    """`MultiAgentPrioritizedEpisodeReplayBuffer` whose samples are runs with their agent's past."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Args:
            state: The state of this buffer or of RLlib's.
        """
        super().set_state(state)
        restore_sample_indices(self)

    def _draw_index(self, module_id: ModuleID) -> tuple:
        return _PrioritizedMixin._draw_index(self, module_id)

    def _trees(self, module_id: ModuleID) -> tuple[Any, Any]:
        return segment_trees(self, module_id)

    def _indices_of(self, module_id: ModuleID) -> list[tuple]:
        return sample_indices(self, module_id)

    def _sample_index(self, module_id: ModuleID) -> dict[int, int]:
        return position_of_leaf(self, module_id)

    def _remember(self, runs: list[Run], module_id: ModuleID) -> None:
        _MultiAgentMixin._remember(self, runs, module_id)
        leaves = self._leaves_of(module_id).of(runs, self.get_num_episodes_evicted())
        set_last_sampled(self, leaves, module_id)
