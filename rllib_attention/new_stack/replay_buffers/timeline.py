"""The transitions of a replay buffer laid end to end, and where its runs lie among them.

    stored episodes      0 1 2 3 4 5 | 0 1 2 | 0 1 2 3 4 | (then the first one again)
    a slot of 4 steps            [4 5 | 0 1]              two runs: 4 5 of one, 0 1 of the next

A batch is filled by slots of T consecutive transitions. A slot holds a transition that was drawn by
RLlib's rule, at a place in it that is drawn uniformly; it is as many runs as it has episodes. Hence
each transition of the buffer comes from T draws, whether it lies at the start, in the middle or at
the end of its episode: if draws are uniform, all transitions are equally likely at each place of
the batch, exactly. Where n-step returns leave out the last n - 1 steps of an episode, they are left
out here, too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.typing import AgentID, ModuleID

Place: TypeAlias = tuple[int, AgentID | None]
"""A single-agent episode in a buffer: the index of what is stored, and the agent in it."""


class Run(NamedTuple):
    """Consecutive transitions of one stored episode."""

    place: Place
    """Where the episode is in its timeline."""
    episode: SingleAgentEpisode
    """The stored episode."""
    start: int
    """Index in the stored episode of the first transition's step."""
    length: int
    """Number of transitions."""
    n_step: int
    """Env steps that each of them spans."""


class Timeline:
    """All transitions of single-agent episodes, end to end and in a circle.

    Args:
        episodes: The stored episodes.
    """

    def __init__(self, episodes: Sequence[Any]):
        self._episodes = episodes

    def episode(self, place: Place) -> SingleAgentEpisode:
        """Returns the episode at a place."""
        return self._episodes[place[0]]

    def walk(self, place: Place, start: int, count: int, n_step: int) -> list[Run]:
        """Returns the runs that `count` transitions from one on make.

        Args:
            place: Episode of the first transition.
            start: Its step; there must be `n_step` steps from there on.
            count: Number of transitions.
            n_step: Env steps that each transition spans.
        """
        runs = []
        while count:
            episode = self.episode(place)
            length = min(count, len(episode) - n_step + 1 - start)
            if length > 0:
                runs.append(Run(place, episode, start, length, n_step))
                count -= length
            place, start = self._neighbour(place, 1), 0
        return runs

    def back(self, place: Place, start: int, count: int, n_step: int) -> tuple[Place, int]:
        """Returns the transition that lies `count` transitions before another one.

        Args:
            place: Episode of the other one.
            start: Its step.
            count: Number of transitions.
            n_step: Env steps that each transition spans.
        """
        while count > start:
            count -= start + 1
            place = self._neighbour(place, -1)
            start = len(self.episode(place)) - n_step
            while start < 0:  # no such transition in this episode
                place = self._neighbour(place, -1)
                start = len(self.episode(place)) - n_step
        return place, start - count

    def _neighbour(self, place: Place, by: int) -> Place:
        return (place[0] + by) % len(self._episodes), None


class AgentTimeline(Timeline):
    """The timeline of one module in a buffer of multi-agent episodes.

    Args:
        episodes: The stored multi-agent episodes.
        module_id: The module.
    """

    def __init__(self, episodes: Sequence[Any], module_id: ModuleID):
        super().__init__(episodes)
        self._module_id = module_id

    def episode(self, place: Place) -> SingleAgentEpisode:
        """Returns the agent's episode at a place."""
        return self._episodes[place[0]].agent_episodes[place[1]]

    def _neighbour(self, place: Place, by: int) -> Place:
        index, agent_id = place
        agents = self._agents(index)
        at = agents.index(agent_id) + by
        while not 0 <= at < len(agents):
            index = (index + by) % len(self._episodes)
            agents = self._agents(index)
            at = 0 if by > 0 else len(agents) - 1
        return index, agents[at]

    def _agents(self, index: int) -> list[AgentID]:
        episode = self._episodes[index]
        return [aid for aid in episode.agent_episodes if episode.module_for(aid) == self._module_id]
