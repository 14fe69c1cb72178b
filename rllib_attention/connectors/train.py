"""The learner pieces: a context for each chunk, or a window for each transition.

Shapes: R rows, T chunk length, C context, F features, P packed token.
"""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
)
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import (
    AddColumnsFromEpisodesToTrainBatch,
    AddNextObservationsFromEpisodesToTrainBatch,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.typing import EpisodeType

from rllib_attention.connectors.inputs import StepInputs, as_array, fragment_inputs
from rllib_attention.connectors.modules import (
    AttentionModule,
    as_rows,
    attention_module,
    has_other_stateful,
    replace_batch_items,
    run_pieces,
)
from rllib_attention.encoder import CONTEXT, FEATURES, LENGTH
from rllib_attention.replay_buffers import HISTORY
from rllib_attention.window import pack_window


class AddContextToTrainBatch(ConnectorV2):
    """Adds `STATE_IN` for modules with attention to the train batch: each chunk's context.

    Where: the last of the custom learner pieces. Algorithms put `AddOneTsToEpisodesAndTruncate`
    in front of it and `GeneralAdvantageEstimation` behind the defaults.
    Reads: observations (and actions and rewards, for previous ones) with the fragment's lookback.
    Writes: all columns of RLlib's default pieces, cut into chunks of `max_seq_len`, and `STATE_IN`
    with the raw observations of the C steps before each chunk. RLlib's pieces behind find their
    columns and return early; `STATE_IN` must come last because they look for it.
    Leaves alone: modules without attention, RNN modules included.

    Args:
        input_observation_space: As for every ConnectorV2.
        input_action_space: As for every ConnectorV2.
        next_observations: Whether the algorithm's learner wants `NEXT_OBS` (BC, MARWIL).

    .. code-block:: python

        from ray.rllib.algorithms.ppo import PPOConfig
        from rllib_attention.connectors import AddContextToTrainBatch

        config = PPOConfig().learners(
            learner_connector=lambda obs_space, action_space: AddContextToTrainBatch()
        )
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        *,
        next_observations: bool = False,
        **kwargs: Any,
    ):
        super().__init__(input_observation_space, input_action_space, **kwargs)
        pieces: list[ConnectorV2] = [AddObservationsFromEpisodesToBatch(as_learner_connector=True)]
        if next_observations:
            pieces.append(AddNextObservationsFromEpisodesToTrainBatch())
        pieces.append(AddColumnsFromEpisodesToTrainBatch())
        pieces.append(AddTimeDimToBatchAndZeroPad(as_learner_connector=True))
        self._pieces = pieces
        self._add_states = AddStatesFromEpisodesToBatch(as_learner_connector=True)

    def __call__(
        self,
        *,
        rl_module: RLModule,
        batch: dict[str, Any],
        episodes: list[EpisodeType],
        explore: bool | None = None,
        shared_data: dict | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Builds chunks and their contexts. See the class docstring."""
        pieces = list(self._pieces)
        if isinstance(rl_module, MultiRLModule) and has_other_stateful(rl_module):
            pieces.append(self._add_states)
        batch = run_pieces(
            pieces,
            rl_module=rl_module,
            batch=batch,
            episodes=episodes,
            explore=explore,
            shared_data=shared_data,
            **kwargs,
        )
        states = [
            (episode, as_rows(module.state(chunk_states(episode, module))))
            for episode, module in _with_attention(self, episodes, rl_module)
        ]
        replace_batch_items(batch, Columns.STATE_IN, states)
        return batch


class AddWindowsToTrainBatch(ConnectorV2):
    """Turns `OBS` and `NEXT_OBS` of modules with attention into windows, one tensor each.

    Where: the last of the custom learner pieces.
    Reads: the true past of each sampled transition, from our replay buffers (`HISTORY` in the
    episode's `custom_data`), else the fragment's own lookback.
    Writes: `OBS` and `NEXT_OBS`, (C + 1, P) for each transition. RLlib's pieces behind find them
    and return early.
    Leaves alone: modules without attention; every other column.

    .. code-block:: python

        from ray.rllib.algorithms.sac import SACConfig
        from rllib_attention.connectors import AddWindowsToTrainBatch

        config = SACConfig().learners(
            learner_connector=lambda obs_space, action_space: AddWindowsToTrainBatch()
        )
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        **kwargs: Any,
    ):
        super().__init__(input_observation_space, input_action_space, **kwargs)
        self._pieces: list[ConnectorV2] = [
            AddObservationsFromEpisodesToBatch(as_learner_connector=True),
            AddNextObservationsFromEpisodesToTrainBatch(),
        ]

    def __call__(
        self,
        *,
        rl_module: RLModule,
        batch: dict[str, Any],
        episodes: list[EpisodeType],
        explore: bool | None = None,
        shared_data: dict | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Builds the windows. See the class docstring."""
        batch = run_pieces(
            self._pieces,
            rl_module=rl_module,
            batch=batch,
            episodes=episodes,
            explore=explore,
            shared_data=shared_data,
            **kwargs,
        )
        found = _with_attention(self, episodes, rl_module)
        windows = [(episode, *transition_windows(episode, module)) for episode, module in found]
        replace_batch_items(batch, Columns.OBS, [(e, as_rows(obs)) for e, obs, _ in windows])
        replace_batch_items(batch, Columns.NEXT_OBS, [(e, as_rows(obs)) for e, _, obs in windows])
        return batch


def _with_attention(
    piece: ConnectorV2, episodes: list[EpisodeType], rl_module: RLModule
) -> Iterator[tuple[SingleAgentEpisode, AttentionModule]]:
    """Yields the episodes, or agents' episodes, in which a module with attention acts."""
    for episode in piece.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
        module = attention_module(rl_module, episode.module_id)
        if module is not None and len(episode):
            yield episode, module


def chunk_states(episode: SingleAgentEpisode, module: AttentionModule) -> dict[str, np.ndarray]:
    """Returns the context of each chunk of a fragment.

    Args:
        episode: The fragment.
        module: The module that acts in it.

    Returns:
        `CONTEXT` (R, C, *obs), `LENGTH` (R, 2) and, with previous inputs, `FEATURES`
        (R, C + T, F).
    """
    num_steps, size, context = len(episode), module.max_seq_len, module.attention.context_len
    inputs = fragment_inputs(episode, module, num_steps)
    first = np.arange(0, num_steps, size)  # of each chunk
    length = np.stack(
        (np.minimum(inputs.num_past + first, context), np.minimum(num_steps - first, size)), axis=1
    )
    inputs = inputs.padded(context, len(first) * size - num_steps)
    state = {CONTEXT: _stretches(inputs.obs, first, context), LENGTH: length}
    if module.prev_inputs.size:
        state[FEATURES] = _stretches(inputs.features, first, context + size)
    return state


def transition_windows(
    episode: SingleAgentEpisode, module: AttentionModule
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the windows of each step and of the step after (n steps after, with n-step returns).

    Args:
        episode: A sampled transition or sequence, or any fragment.
        module: The module that acts in it.

    Returns:
        Windows of `obs` and `next_obs`, (T, C + 1, P) each.
    """
    context, num_steps = module.attention.context_len, len(episode)
    inputs, span = _inputs_around(episode, module)
    padded = inputs.padded(max(context, inputs.num_past))
    valid = np.arange(len(padded.obs)) >= padded.num_past - inputs.num_past
    packed = pack_window(padded.obs, padded.features, valid)
    at = padded.num_past + np.arange(num_steps) - context
    return _stretches(packed, at, context + 1), _stretches(packed, at + span, context + 1)


def _inputs_around(episode: SingleAgentEpisode, module: AttentionModule) -> tuple[StepInputs, int]:
    """Returns a fragment's inputs, and how many env steps lie between `obs` and `next_obs`."""
    history = episode.custom_data.get(HISTORY)
    if history is None:
        if "n_step" in episode.extra_model_outputs:  # RLlib's replay buffers add it
            raise ValueError(
                "A replayed transition has no past: its buffer was not upgraded, because "
                "`config.callbacks(on_algorithm_init=...)` was set after `use_attention`. Call "
                "`use_attention(config)` last: it keeps your callbacks."
            )
        # One step more than the fragment has actions: the last observation.
        return fragment_inputs(episode, module, len(episode) + 1), 1
    past = history["num_history"]
    obs = as_array(history["obs"])
    prev = module.prev_inputs
    # The oldest steps only serve as previous actions and rewards of the next.
    skip = max(0, past - module.attention.context_len)
    features = prev.sequence(history["actions"], history["rewards"], skip, len(obs) - skip)
    span = len(obs) - 1 - past  # env steps between the first and the last observation
    return StepInputs(obs[skip:], features, past - skip), span - len(episode) + 1


def _stretches(array: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
    """Returns `length` consecutive entries from each of `first`: (N, ...) → (R, length, ...)."""
    if not length:
        return np.zeros((len(first), 0, *array.shape[1:]), array.dtype)
    return np.moveaxis(sliding_window_view(array, length, axis=0), -1, 1)[first]
