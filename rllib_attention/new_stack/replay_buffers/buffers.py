"""RLlib's four episode replay buffers, with the history of each sampled transition.

Nothing of a history is stored: the buffers keep one observation per env step, as RLlib's do, and
cut each history out of the stored episode when they sample.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.typing import AgentID

from rllib_attention.new_stack.replay_buffers.history import (
    HISTORY,
    count_from_stored_start,
    slice_history,
    without_agent_lookbacks,
    without_lookback,
)

Episode: TypeAlias = SingleAgentEpisode | MultiAgentEpisode
Source = tuple[SingleAgentEpisode, int]
"""A stored episode and the index in it at which a sample starts."""


def check_history_len(history_len: int) -> int:
    """Returns `history_len` if it is an int of at least 0.

    Raises:
        ValueError: If `history_len` is not an int, or is negative.
    """
    if not isinstance(history_len, int) or isinstance(history_len, bool) or history_len < 0:
        raise ValueError(
            f"`history_len` must be an int >= 0, but got {history_len!r}. "
            "Use `AttentionConfig.history_len`."
        )
    return history_len


# To type checkers, the RLlib buffer that a mixin is put in front of.
_Base: Any = object


class _HistoryMixin(_Base):
    """Adds histories to the samples of one of RLlib's episode replay buffers.

    Args:
        *args: Positional arguments of RLlib's buffer.
        history_len: Number of steps before each sampled transition to return.
        **kwargs: Keyword arguments of RLlib's buffer.

    Raises:
        ValueError: If `history_len` is not an int, or is negative.
    """

    # Without instance slots of its own, a subclass keeps its parent's memory layout, so that
    # `upgrade_replay_buffer` may assign it to a built buffer's `__class__`. What the methods assign
    # lies in the `__dict__` of RLlib's buffer, which mypy does not see: hence `ignore[misc]`.
    __slots__ = ()

    history_len: int

    def __init__(self, *args: Any, history_len: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.history_len = check_history_len(history_len)  # type: ignore[misc]

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

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Samples as RLlib's buffer does and gives each sampled episode its history.

        Args:
            *args: Positional arguments of RLlib's `sample`.
            **kwargs: Keyword arguments of RLlib's `sample`.

        Returns:
            What RLlib's buffer returns. If that is a list of episodes, each one's `custom_data`
            has, under `HISTORY`, what `slice_history` returns for it.
        """
        sampled = super().sample(*args, **kwargs)
        # Not so for `sample_episodes=False`, which returns a dict of arrays.
        if isinstance(sampled, list):
            is_sequence = bool(kwargs.get("batch_length_T"))
            for episode, source in zip(sampled, self._sources(sampled, is_sequence), strict=True):
                self._attach_history(episode, *source, is_sequence)
        return sampled

    def _attach_history(
        self, sampled: SingleAgentEpisode, source: SingleAgentEpisode, start: int, is_sequence: bool
    ) -> None:
        # A transition is one step long, however many it spans.
        n_step = int(sampled.extra_model_outputs["n_step"].data[-1])
        num_steps = len(sampled) if is_sequence else n_step
        sampled.custom_data[HISTORY] = slice_history(
            source, start=start, num_steps=num_steps, history_len=self.history_len
        )

    def _sources(self, sampled: list[SingleAgentEpisode], is_sequence: bool) -> Iterator[Source]:
        raise NotImplementedError

    def _stored(self, episode_id: str) -> Any:
        return self.episodes[self.episode_id_to_index[episode_id] - self._num_episodes_evicted]

    def _strip(self, episode: Episode, num_evictable: int) -> Episode:
        """Drops the lookback of a chunk that will be appended to its stored earlier part.

        RLlib's `add` deep-copies each chunk, lookback included, and then throws the lookback away.
        """
        index = self.episode_id_to_index.get(episode.id_)
        # The earlier part may be gone by the time that RLlib adds this chunk. Then the chunk
        # becomes an episode of its own, and its lookback is the only past that it has.
        if index is None or index - self._num_episodes_evicted < num_evictable:
            return episode
        return self._strip_appended(episode)

    def _strip_appended(self, episode: Episode) -> Episode:
        return without_lookback(episode)

    def _num_evictable(self, num_new_steps: int) -> int:
        """Returns how many of the oldest episodes may be evicted when this many steps are added."""
        excess = self._num_timesteps + num_new_steps - self.capacity
        for count, episode in enumerate(self.episodes):
            if excess <= 0:
                return count
            excess -= episode.env_steps()
        return len(self.episodes)


class HistoryEpisodeReplayBuffer(_HistoryMixin, EpisodeReplayBuffer):
    """`EpisodeReplayBuffer` whose sampled episodes carry their history.

    Example:
        >>> from ray.rllib.env.single_agent_episode import SingleAgentEpisode
        >>> from rllib_attention.new_stack.replay_buffers import HISTORY, HistoryEpisodeReplayBuffer
        >>> buffer = HistoryEpisodeReplayBuffer(capacity=100, history_len=2)
        >>> buffer.add(SingleAgentEpisode(
        ...     observations=[0, 1, 2, 3, 4], actions=[0, 1, 2, 3], rewards=[0.0, 1.0, 2.0, 3.0],
        ...     len_lookback_buffer=0, terminated=True,
        ... ))
        >>> sampled = buffer.sample(num_items=8, n_step=1, sample_episodes=True)
        >>> last = max(sampled, key=lambda episode: episode.get_observations(0))
        >>> last.custom_data[HISTORY]["obs"]
        array([1, 2, 3, 4])
    """

    def _sources(self, sampled: list[SingleAgentEpisode], is_sequence: bool) -> Iterator[Source]:
        for episode in sampled:
            source = self._stored(episode.id_)
            # RLlib counts `t_started` of a sequence from the start of the real episode, and of a
            # transition from the start of the stored one.
            yield source, episode.t_started - (source.t_started if is_sequence else 0)


class HistoryPrioritizedEpisodeReplayBuffer(_HistoryMixin, PrioritizedEpisodeReplayBuffer):
    """`PrioritizedEpisodeReplayBuffer` whose sampled episodes carry their history."""

    def _sources(self, sampled: list[SingleAgentEpisode], is_sequence: bool) -> Iterator[Source]:
        # These samples have new random IDs. What was sampled is known until the next call of
        # `update_priorities`.
        for tree_index in self._last_sampled_indices:
            index, start, _ = self._indices[self._tree_idx_to_sample_idx[tree_index]]
            yield self.episodes[index - self._num_episodes_evicted], start


class _MultiAgentHistoryMixin(_HistoryMixin):
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

    def sample(self, *args: Any, **kwargs: Any) -> list[SingleAgentEpisode]:
        """Samples as RLlib's buffer does and gives each sampled episode its history.

        Args:
            *args: Positional arguments of RLlib's `sample`.
            **kwargs: Keyword arguments of RLlib's `sample`.

        Returns:
            Single-agent episodes. Each one's `custom_data` has, under `HISTORY`, what
            `slice_history` returns for its agent.

        Raises:
            ValueError: If `replay_mode` is not `"independent"`.
        """
        replay_mode = kwargs.get("replay_mode", "independent")
        if replay_mode != "independent":
            raise ValueError(
                f"`replay_mode` must be 'independent', but got {replay_mode!r}: RLlib's "
                "synchronized samples are arrays without their episodes, so that they have no "
                'history to attend to. Use `buffer.sample(..., replay_mode="independent")`.'
            )
        return super().sample(*args, **kwargs)

    def _sources(self, sampled: list[SingleAgentEpisode], is_sequence: bool) -> Iterator[Source]:
        for episode in sampled:
            stored = self._stored(episode.multi_agent_episode_id)
            yield stored.agent_episodes[episode.agent_id], episode.t_started

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


class HistoryMultiAgentEpisodeReplayBuffer(_MultiAgentHistoryMixin, MultiAgentEpisodeReplayBuffer):
    """`MultiAgentEpisodeReplayBuffer` whose sampled episodes carry their agent's history."""


class HistoryMultiAgentPrioritizedEpisodeReplayBuffer(
    _MultiAgentHistoryMixin, MultiAgentPrioritizedEpisodeReplayBuffer
):
    """`MultiAgentPrioritizedEpisodeReplayBuffer` whose samples carry their agent's history."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Args:
            state: The state of this buffer or of RLlib's.
        """
        super().set_state(state)
        # Not part of RLlib's state, but the first eviction after a restore looks into it.
        self._sample_idx_to_tree_idx = {
            sample_index: tree_index
            for tree_index, sample_index in self._tree_idx_to_sample_idx.items()
        }
