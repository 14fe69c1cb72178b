"""Chunks of episodes on their way into a replay buffer: what of their lookback is needed there."""

import copy

from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.typing import AgentID


def without_lookback(episode: SingleAgentEpisode) -> SingleAgentEpisode:
    """Returns a shallow copy of `episode` that has no lookback and leaves `episode` as it is."""
    stripped = copy.copy(episode)
    for name in ("observations", "infos", "actions", "rewards"):
        setattr(stripped, name, _drop_lookback(getattr(episode, name)))
    stripped.extra_model_outputs = {
        key: _drop_lookback(buffer) for key, buffer in episode.extra_model_outputs.items()
    }
    return stripped


def without_agent_lookbacks(
    episode: MultiAgentEpisode, stored: MultiAgentEpisode
) -> MultiAgentEpisode:
    """Returns a shallow copy of `episode` without the lookbacks of agents that `stored` has.

    An agent that is new to `stored` keeps its lookback, as nothing else holds its past.
    """
    stripped = copy.copy(episode)
    stripped.agent_episodes = {
        agent_id: without_lookback(agent_episode)
        if agent_id in stored.agent_episodes
        else agent_episode
        for agent_id, agent_episode in episode.agent_episodes.items()
    }
    return stripped


def count_from_stored_start(
    episode: MultiAgentEpisode, starts: dict[AgentID, int]
) -> MultiAgentEpisode:
    """Returns `episode` with its env-to-agent steps counted from where its stored part starts.

    RLlib's multi-agent buffers look up the steps of a stored episode by their index in it, but the
    chunks of an episode count them from its real start. The two differ, and sampling fails, if the
    earlier part of the episode was evicted.

    Args:
        episode: A chunk that is about to be added.
        starts: For each agent, the real step at which the stored part of its episode starts.
    """
    if not any(starts.values()):
        return episode
    recounted = copy.copy(episode)
    recounted.env_t_to_agent_t = copy.copy(episode.env_t_to_agent_t)
    for agent_id, start in starts.items():
        steps = copy.copy(episode.env_t_to_agent_t[agent_id])
        steps.data = [t if t == episode.SKIP_ENV_TS_TAG else t - start for t in steps.data]
        recounted.env_t_to_agent_t[agent_id] = steps
    return recounted


def _drop_lookback(buffer: InfiniteLookbackBuffer) -> InfiniteLookbackBuffer:
    stripped = copy.copy(buffer)
    stripped.data = buffer.get()
    stripped.lookback = 0
    return stripped
