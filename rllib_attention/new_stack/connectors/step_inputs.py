"""Takes an encoder's inputs, and those of the steps before, out of episodes.

Shapes: K past steps, T time, C context, A row of a previous action and reward, E rows that the
oldest step reaches back to (`PrevInputs.depth` - 1, or 0).
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
        rows: Previous actions and rewards, (E + K + T, A).
        num_past: Steps K that lie before the steps in question.
    """

    obs: np.ndarray
    rows: np.ndarray
    num_past: int

    def last(self, num_steps: int) -> "StepInputs":
        """Returns the last steps, as steps in question."""
        cut = len(self.obs) - num_steps
        return StepInputs(self.obs[cut:], self.rows[cut:], 0)

    def padded(self, front: int, back: int = 0) -> "StepInputs":
        """Returns the same with exactly `front` past steps and `back` more steps, zeros added."""
        cut = max(0, self.num_past - front)
        pad = (front - (self.num_past - cut), back)
        return StepInputs(_pad(self.obs[cut:], pad), _pad(self.rows[cut:], pad), front)


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
    obs = episode.get_observations(slice(-past, num_steps), neg_index_as_lookback=True)
    obs = module.observation(as_batch(obs))
    carried = episode.custom_data.get(CARRIED_CONTEXT)
    if carried is None or carried["stop"] != episode.t_started:
        rows = _fragment_rows(episode, prev, past, past + num_steps)
        return StepInputs(obs, rows, past)
    # The carried rows end with that of the fragment's first step.
    rows = np.concatenate((carried["rows"], _rows(episode, prev, 0, num_steps - 1)))
    obs = np.concatenate((carried["obs"], obs[past:]))
    return StepInputs(obs, rows, len(carried["obs"]))


def training_inputs(
    episode: SingleAgentEpisode, module: AttentionModule, num_steps: int
) -> StepInputs:
    """Returns `fragment_inputs` for training, where the past must be complete.

    Args:
        episode: The fragment.
        module: The module that acts in it.
        num_steps: Steps T.

    Raises:
        ValueError: If the fragment holds less of its past than the module saw when it acted, or an
            observation is not finite (unless the module's `check_finite` is off).
    """
    inputs = fragment_inputs(episode, module, num_steps)
    needed = min(module.attention.context_len, episode.t_started)
    if inputs.num_past < needed:
        raise ValueError(
            f"A fragment that starts at step {episode.t_started} of its episode must hold the "
            f"{needed} steps before it to be trained on, since attention saw them, got "
            f"{inputs.num_past}. Use `config.env_runners(episode_lookback_horizon="
            f"{module.attention.history_len})`; in an algorithm of your own, sample from one of "
            "RLlib's episode replay buffers in `self.local_replay_buffer`."
        )
    first = episode.t_started - inputs.num_past
    module.check_finite(inputs.obs, lambda i: f"step {first + i} of episode {episode.id_}")
    return inputs


def newest_row(episode: SingleAgentEpisode, prev: PrevInputs) -> np.ndarray | None:
    """Returns the row (A,) of the newest observation of a running episode, None without inputs."""
    if not prev.size:
        return None
    known = min(1, len(episode) + _lookback(episode, prev))
    return prev.padded(_rows(episode, prev, len(episode) - known, len(episode)), 1)[0]


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
    at, stop = np.array([slot]), np.array([start])
    obs, _ = history.context(at, stop, wanted)
    # With the row of the fragment's first step, which its own lookback may not hold.
    rows = history.rows_before(at, stop + 1, wanted + 1)
    episode.custom_data[CARRIED_CONTEXT] = {"stop": start, "obs": obs[0], "rows": rows[0]}


def as_batch(values: Any) -> Any:
    """Returns a list of observations, or a batch of them, as one batch."""
    return batch(values) if isinstance(values, list) else values


def _lookback(episode: SingleAgentEpisode, prev: PrevInputs) -> int:
    """Returns how many steps before the fragment are known in full."""
    buffers = [episode.observations]
    if prev.size:
        buffers += [episode.actions, episode.rewards]
    return min(buffer.lookback for buffer in buffers)


def _fragment_rows(
    episode: SingleAgentEpisode, prev: PrevInputs, past: int, num_steps: int
) -> np.ndarray:
    """Returns the rows of `num_steps` steps from `past` before a fragment on, (E + steps, A)."""
    before = min(prev.depth, _lookback(episode, prev) - past)
    rows = _rows(episode, prev, -past - before, num_steps - past - 1)
    return prev.padded(rows, max(0, prev.depth - 1) + num_steps)


def _rows(episode: SingleAgentEpisode, prev: PrevInputs, first: int, stop: int) -> np.ndarray:
    """Returns the rows that actions and rewards `first` … `stop` - 1 of a fragment make."""
    if not prev.size:
        return np.zeros((stop - first, 0), np.float32)
    steps = slice(first, stop)
    actions = episode.get_actions(steps, neg_index_as_lookback=True)
    rewards = episode.get_rewards(steps, neg_index_as_lookback=True)
    return prev.rows(actions, rewards, stop - first)


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
