"""The learner piece of the window path: a window for each transition.

Shapes: T time, C context, P packed token.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
)
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import (
    AddNextObservationsFromEpisodesToTrainBatch,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.typing import EpisodeType

from rllib_attention.encoder.packed_window import pack_window
from rllib_attention.new_stack.connectors.attention_module import (
    AttentionModule,
    episodes_with_attention,
    find_attention,
)
from rllib_attention.new_stack.connectors.batch_items import (
    as_rows,
    replace_batch_items,
    run_pieces,
)
from rllib_attention.new_stack.connectors.step_inputs import (
    StepInputs,
    as_batch,
    fragment_inputs,
    stretches,
)
from rllib_attention.new_stack.replay_buffers import HISTORY


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
        from rllib_attention.new_stack.connectors import AddWindowsToTrainBatch

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
        found = episodes_with_attention(self, episodes, find_attention(rl_module))
        windows = [(episode, *transition_windows(episode, module)) for episode, module in found]
        replace_batch_items(batch, Columns.OBS, [(e, as_rows(obs)) for e, obs, _ in windows])
        replace_batch_items(batch, Columns.NEXT_OBS, [(e, as_rows(obs)) for e, _, obs in windows])
        return batch


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
    prev = module.prev_inputs
    stacked = prev.stack(padded.rows) if prev.size else padded.rows
    valid = np.arange(len(padded.obs)) >= padded.num_past - inputs.num_past
    packed = pack_window(padded.obs, stacked, valid)
    at = padded.num_past + np.arange(num_steps) - context
    return stretches(packed, at, context + 1), stretches(packed, at + span, context + 1)


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
    obs = module.observation(as_batch(history["obs"]))
    prev = module.prev_inputs
    # The oldest steps only serve as previous actions and rewards of the next.
    skip = max(0, past - module.attention.context_len)
    rows = prev.rows(history["actions"], history["rewards"], len(obs) - 1)
    rows = prev.padded(rows, max(0, prev.depth - 1) + len(obs) - skip)
    span = len(obs) - 1 - past  # env steps between the first and the last observation
    return StepInputs(obs[skip:], rows, past - skip), span - len(episode) + 1
