"""The history of a sampled transition, sliced from the episode that it was sampled from.

    stored episode   [lookback | o_0  o_1  ...  o_t  ...  o_{t+n}  ...]
    sample                                      o_t       o_{t+n}
    history                     [o_{t-h}  ...   o_t  ...  o_{t+n}]

RLlib's samples hold the two observations in the middle line. The bottom line adds the `h` steps
before `t`, and, for `n > 1`, the steps that an n-step transition skips.
"""

import copy
from typing import Any

import numpy as np
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.spaces.space_utils import batch
from ray.rllib.utils.typing import AgentID

HISTORY = "attention_history"
"""Key of a sampled episode's history in its `custom_data`."""


def slice_history(
    source: SingleAgentEpisode, *, start: int, num_steps: int, history_len: int
) -> dict[str, Any]:
    """Returns the true past of the transition that starts at index `start` of `source`.

    Steps are counted from the end of the stored lookback, as the replay buffers count them. The
    arrays are views into `source` where it is stored as arrays: read them, do not write to them.

    Args:
        source: The stored episode that the transition was sampled from.
        start: Index of the transition's first step in `source`.
        num_steps: Number of env steps that the transition spans (n), clipped at the end of
            `source`, as RLlib's uniform buffer clips the transition itself.
        history_len: Number of steps before `start` to return, if there are that many.

    Returns:
        A dict with `"obs"` (`h + n + 1` observations), `"actions"` and `"rewards"` (`h + n` each,
        rewards as the environment returned them), batched along axis 0, and `"num_history"` (h).
    """
    # A chunk whose earlier part was evicted still has its own lookback: that is true past, too.
    available = start + min(source.observations.lookback, source.rewards.lookback)
    num_history = min(available, history_len)
    first, stop = start - num_history, start + num_steps
    return {
        Columns.OBS: _rows(source.observations, first, stop + 1),
        Columns.ACTIONS: _rows(source.actions, first, stop),
        Columns.REWARDS: _rows(source.rewards, first, stop),
        "num_history": num_history,
    }


def _rows(buffer: InfiniteLookbackBuffer, first: int, stop: int) -> Any:
    # Index the data directly: `InfiniteLookbackBuffer.get` costs more than the slice itself.
    rows = slice(buffer.lookback + first, buffer.lookback + stop)
    if isinstance(buffer.data, np.ndarray):
        return buffer.data[rows]
    if buffer.finalized:
        return tree.map_structure(lambda leaf: leaf[rows], buffer.data)
    return batch(buffer.data[rows])


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
