"""Runs of one agent each, from multi-agent episodes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils import force_list
from ray.rllib.utils.typing import AgentID, ModuleID

from rllib_attention.compat import (
    sample_indices,
)
from rllib_attention.new_stack.replay_buffers.lookback import (
    count_from_stored_start,
    without_agent_lookbacks,
)
from rllib_attention.new_stack.replay_buffers.runs_mixin import Episode, RunsMixin
from rllib_attention.new_stack.replay_buffers.timeline import AgentTimeline, Run, Timeline


class MultiAgentRunsMixin(RunsMixin):
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
