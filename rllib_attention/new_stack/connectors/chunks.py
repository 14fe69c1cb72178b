"""The learner piece of the sequence path: a context for each chunk.

Shapes: R rows, T chunk length, C context, F features.
"""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
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

from rllib_attention.encoder.inputs import ChunkContext
from rllib_attention.new_stack.connectors.attention_module import (
    AttentionModule,
    episodes_with_attention,
    find_attention,
    has_other_stateful,
)
from rllib_attention.new_stack.connectors.batch_items import (
    as_rows,
    replace_batch_items,
    run_pieces,
    stays_on_host,
)
from rllib_attention.new_stack.connectors.step_inputs import stretches, training_inputs


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
        is_offline: Whether the batch is of recorded episodes. Ray Data then hands it to the learner
            as tensors, and encoders wait for the chunks' lengths.

    .. code-block:: python

        from ray.rllib.algorithms.ppo import PPOConfig
        from rllib_attention.new_stack.connectors import AddContextToTrainBatch

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
        is_offline: bool = False,
        **kwargs: Any,
    ):
        super().__init__(input_observation_space, input_action_space, **kwargs)
        pieces: list[ConnectorV2] = [AddObservationsFromEpisodesToBatch(as_learner_connector=True)]
        if next_observations:
            pieces.append(AddNextObservationsFromEpisodesToTrainBatch())
        pieces.append(AddColumnsFromEpisodesToTrainBatch())
        pieces.append(AddTimeDimToBatchAndZeroPad(as_learner_connector=True))
        self._pieces, self._is_offline = pieces, is_offline
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
        known = find_attention(rl_module)
        pieces = list(self._pieces)
        if isinstance(rl_module, MultiRLModule) and has_other_stateful(rl_module, known):
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
            (episode, as_rows(module.state(self._lengths(chunk_contexts(episode, module)))))
            for episode, module in episodes_with_attention(self, episodes, known)
        ]
        replace_batch_items(batch, Columns.STATE_IN, states)
        return batch

    def _lengths(self, contexts: ChunkContext) -> dict[str, Any]:
        """Returns the state, with lengths that stay on the host if they can."""
        if self._is_offline:
            return contexts.to_state()
        names = ("context_length", "chunk_length")
        lengths = {name: stays_on_host(getattr(contexts, name)) for name in names}
        return dataclasses.replace(contexts, **lengths).to_state()


def chunk_contexts(episode: SingleAgentEpisode, module: AttentionModule) -> ChunkContext:
    """Returns the context of each chunk of a fragment.

    Args:
        episode: The fragment.
        module: The module that acts in it.

    Returns:
        The contexts of R chunks.
    """
    num_steps, size, context = len(episode), module.max_seq_len, module.attention.context_len
    inputs = training_inputs(episode, module, num_steps)
    first = np.arange(0, num_steps, size)  # of each chunk
    num_past = inputs.num_past
    inputs = inputs.padded(context, len(first) * size - num_steps)
    reach = len(inputs.rows) - len(inputs.obs)
    return ChunkContext(
        context=stretches(inputs.obs, first, context),
        context_length=np.minimum(num_past + first, context),
        chunk_length=np.minimum(num_steps - first, size),
        prev=stretches(inputs.rows, first, reach + context + size)
        if module.prev_inputs.size
        else None,
    )
