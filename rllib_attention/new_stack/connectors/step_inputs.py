"""Takes an encoder's inputs, and those of the steps before, out of episodes.

Shapes: K past steps, T time, C context, F previous-action and -reward features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import batch

from rllib_attention.encoder.prev_inputs import PrevInputs
from rllib_attention.encoder.rollout_history import RolloutHistory
from rllib_attention.new_stack.connectors.attention_module import AttentionModule

# In `SingleAgentEpisode.custom_data`: inputs before a fragment that its lookback does not hold.
CARRIED_CONTEXT = "attention_context"


@dataclass(frozen=True)
class StepInputs:
    """The inputs of consecutive steps of one episode.

    Attributes:
        obs: Observations, (K + T, *obs).
        features: Previous actions and rewards, (K + T, F).
        num_past: Steps K that lie before the steps in question.
    """

    obs: np.ndarray
    features: np.ndarray
    num_past: int

    def padded(self, front: int, back: int = 0) -> "StepInputs":
        """Returns the same with exactly `front` past steps and `back` more steps, zeros added."""
        cut = max(0, self.num_past - front)
        pad = (front - (self.num_past - cut), back)
        obs, features = (_pad(x[cut:], pad) for x in (self.obs, self.features))
        return StepInputs(obs, features, front)


def fragment_inputs(
    episode: SingleAgentEpisode, module: AttentionModule, num_steps: int
) -> StepInputs:
    """Returns the inputs of the first T steps of a fragment and of up to C steps before it.

    The past comes from the fragment's lookback, or from `CARRIED_CONTEXT` if it holds more.

    Args:
        episode: The fragment.
        module: The module that acts in it.
        num_steps: Steps T.
    """
    prev = module.prev_inputs
    past = min(module.attention.context_len, _lookback(episode, prev))
    obs = as_array(episode.get_observations(slice(-past, num_steps), neg_index_as_lookback=True))
    features = _fragment_features(episode, prev, past, num_steps)
    return _with_carried(StepInputs(obs, features, past), episode, prev)


def step_features(
    episode: SingleAgentEpisode, prev: PrevInputs, before: np.ndarray | None
) -> np.ndarray | None:
    """Returns the features (F,) of the newest observation of a running episode.

    Args:
        episode: The episode.
        prev: Encodes previous actions and rewards.
        before: The features of the step before, or None if they are not known. A fragment's own
            lookback may hold fewer steps than they reach back.
    """
    if not prev.size:
        return None
    if before is not None and len(episode):
        return prev.advance(before, episode.get_actions(-1), episode.get_rewards(-1))
    known = min(prev.depth, len(episode) + _lookback(episode, prev))
    recent = slice(len(episode) - known, len(episode))
    actions = episode.get_actions(recent, neg_index_as_lookback=True)
    rewards = episode.get_rewards(recent, neg_index_as_lookback=True)
    return prev.sequence(actions, rewards, known, 1)[0]


def carry_context(
    episode: SingleAgentEpisode, module: AttentionModule, history: RolloutHistory, slot: int
) -> None:
    """Puts the context of a fragment into the fragment, if its lookback does not hold it.

    RLlib's lookback counts env steps, so an agent that acts every k-th one keeps a k-th of its
    past; and a sweep may have set a lookback for another receptive field.

    Args:
        episode: A fragment, at most one step after its first.
        module: The module that acts in it.
        history: The runner's raw inputs.
        slot: The episode's slot.
    """
    start = episode.t_started
    wanted = min(start - int(history.starts[slot]), module.attention.context_len)
    if _lookback(episode, module.prev_inputs) >= wanted + min(module.prev_inputs.depth, start):
        return
    carried = episode.custom_data.get(CARRIED_CONTEXT)
    if carried is not None and carried["stop"] == start:
        return
    obs, features = history.context(np.array([slot]), np.array([start]), wanted)
    first = history.features[slot, start % history.size].copy()
    episode.custom_data[CARRIED_CONTEXT] = {
        "stop": start,
        "obs": obs[0],
        "features": features[0],
        "first_features": first,
    }


def as_array(values: Any) -> np.ndarray:
    """Returns a list of observations, or a batch of them, as one array."""
    return batch(values) if isinstance(values, list) else values


def _lookback(episode: SingleAgentEpisode, prev: PrevInputs) -> int:
    """Returns how many steps before the fragment are known in full."""
    buffers = [episode.observations]
    if prev.size:
        buffers += [episode.actions, episode.rewards]
    return min(buffer.lookback for buffer in buffers)


def _fragment_features(
    episode: SingleAgentEpisode, prev: PrevInputs, past: int, num_steps: int
) -> np.ndarray:
    if not prev.size:
        return np.zeros((past + num_steps, 0), np.float32)
    before = min(prev.depth, _lookback(episode, prev) - past)
    known = slice(-(past + before), num_steps - 1)
    actions = episode.get_actions(known, neg_index_as_lookback=True)
    rewards = episode.get_rewards(known, neg_index_as_lookback=True)
    return prev.sequence(actions, rewards, before, past + num_steps)


def _with_carried(inputs: StepInputs, episode: SingleAgentEpisode, prev: PrevInputs) -> StepInputs:
    carried = episode.custom_data.get(CARRIED_CONTEXT)
    if carried is None or carried["stop"] != episode.t_started:
        return inputs
    obs = np.concatenate((carried["obs"], inputs.obs[inputs.num_past :]))
    features = prev.continued(inputs.features[inputs.num_past :], carried["first_features"])
    features = np.concatenate((carried["features"], features))
    return StepInputs(obs, features, len(carried["obs"]))


def _pad(array: np.ndarray, pad: tuple[int, int]) -> np.ndarray:
    if not any(pad):
        return array
    front, back = (np.zeros((n, *array.shape[1:]), array.dtype) for n in pad)
    return np.concatenate((front, array, back))


def stretches(array: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
    """Returns `length` consecutive entries from each of `first`: (N, ...) → (R, length, ...)."""
    if not length:
        return np.zeros((len(first), 0, *array.shape[1:]), array.dtype)
    return np.moveaxis(sliding_window_view(array, length, axis=0), -1, 1)[first]
