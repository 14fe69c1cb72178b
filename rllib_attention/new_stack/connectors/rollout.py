"""The env-to-module piece: each row's cache slot, and the raw inputs of the last steps."""

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
)
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.typing import EpisodeType

from rllib_attention.encoder.encoder import FEATURES, HANDLE
from rllib_attention.encoder.rollout_history import RolloutHistory
from rllib_attention.new_stack.connectors.attention_module import (
    AttentionModule,
    as_rows,
    attention_module,
    batch_key,
    has_other_stateful,
    replace_batch_items,
    run_pieces,
)
from rllib_attention.new_stack.connectors.step_inputs import (
    carry_context,
    fragment_inputs,
    step_features,
)

# A MultiAgentEnvRunner shows ended episodes in a call of their own: an episode that is missing
# from this many calls in a row is gone.
_CALLS_UNSEEN = 3


class AddRolloutContext(ConnectorV2):
    """Adds `STATE_IN` for modules with attention to the batch of the next forward pass.

    Where: the last of the custom env-to-module pieces, before RLlib's
    `AddObservationsFromEpisodesToBatch`.
    Reads: the newest observation (and previous actions and rewards) of each episode.
    Writes: `STATE_IN` with each row's cache slot and time step. RLlib's `AddTimeDim...` and
    `AddStates...` then have nothing to do: rows have no time dimension in a rollout. To episodes
    it adds nothing, save a fragment's context where RLlib's lookback is too short for it.
    Leaves alone: modules without attention; beside RNN modules it runs RLlib's `AddTimeDim...` and
    `AddStates...` for them.

    .. code-block:: python

        from ray.rllib.algorithms.ppo import PPOConfig
        from rllib_attention.new_stack.connectors import AddRolloutContext

        config = PPOConfig().env_runners(
            env_to_module_connector=lambda env, spaces, device: AddRolloutContext()
        )
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        **kwargs: Any,
    ):
        super().__init__(input_observation_space, input_action_space, **kwargs)
        self._histories: dict[str | None, RolloutHistory] = {}
        self._seen: dict[str, int] = {}
        self._calls = 0
        self._pieces = (
            AddObservationsFromEpisodesToBatch(),
            AddTimeDimToBatchAndZeroPad(),
            AddStatesFromEpisodesToBatch(),
        )

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
        """Adds the rows' slots. See the class docstring."""
        self._collect(episodes)
        # RLlib maps rows to modules by the first column, so observations come first. Even an
        # empty `STATE_IN` keeps `AddTimeDim...` from announcing a time dimension.
        has_own_obs = Columns.OBS in batch
        rnns = isinstance(rl_module, MultiRLModule) and has_other_stateful(rl_module)
        batch = run_pieces(
            self._pieces if rnns else self._pieces[:1],
            rl_module=rl_module,
            batch=batch,
            episodes=episodes,
            explore=explore,
            shared_data=shared_data,
            **kwargs,
        )
        known: dict[str | None, tuple[AttentionModule, RolloutHistory] | None] = {}
        rows = []
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=True):
            module_id = episode.module_id
            if module_id not in known:
                known[module_id] = self._connect(module_id, rl_module)
            if (found := known[module_id]) is not None:
                rows.append((episode, self._record(episode, *found), *found))
                if has_own_obs:
                    _check_observation(batch[Columns.OBS], episode)
        if isinstance(rl_module, MultiRLModule):
            states = [(row[0], _state([row])) for row in rows]
            replace_batch_items(batch, Columns.STATE_IN, states)
        elif rows:
            # Ready-made: RLlib would batch one item of each episode.
            batch[Columns.STATE_IN] = [_state(rows)]
        self._carry_contexts(episodes, rl_module)
        return batch

    def _record(
        self, episode: SingleAgentEpisode, module: AttentionModule, history: RolloutHistory
    ) -> int:
        """Writes the newest step into the history; returns its slot."""
        slot, step = history.slot(episode.id_), episode.t
        if slot is None or history.steps[slot] != step - 1:
            slot = _reload(episode, module, history)
        features = step_features(episode, module.prev_inputs, history.features_before(slot, step))
        history.write(slot, step, np.asarray(episode.get_observations(-1)), features)
        if episode.is_done:
            history.close_later(episode.id_)
        return slot

    def _connect(
        self, module_id: str | None, rl_module: RLModule
    ) -> tuple[AttentionModule, RolloutHistory] | None:
        """Returns a module with attention and its history, which its encoders now read."""
        module = attention_module(rl_module, module_id)
        if module is None:
            return None
        attention = module.attention
        history = self._histories.get(module_id)
        if history is None or history.context_len != attention.context_len:
            history = RolloutHistory(attention.context_len, module.prev_inputs.size)
            self._histories[module_id] = history
        if not module.encoders[0].is_attached(history):
            name = "the RLModule" if module_id is None else f"RLModule {module_id!r}"
            for encoder in module.encoders:
                encoder.attach_history(history, name)
            # In training mode, RLlib would switch the whole tree back and forth in each step.
            single = rl_module[module_id] if isinstance(rl_module, MultiRLModule) else rl_module
            single.eval()
        return module, history

    def _carry_contexts(self, episodes: list[EpisodeType], rl_module: RLModule) -> None:
        """Gives fragments their context where RLlib's lookback is too short for it."""
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            if not episode.t_started or len(episode) > 1:
                continue  # a whole episode, or one that has been looked at
            module = attention_module(rl_module, episode.module_id)
            if module is None or module.windowed:
                continue
            history = self._histories.get(episode.module_id)
            slot = None if history is None else history.slot(episode.id_)
            if history is not None and slot is not None:
                carry_context(episode, module, history, slot)

    def _collect(self, episodes: list[EpisodeType]) -> None:
        """Frees the slots of episodes that are gone."""
        self._calls += 1
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            self._seen[episode.id_] = self._calls
        patience = 0 if isinstance(episodes[0], SingleAgentEpisode) else _CALLS_UNSEEN
        gone = [key for key, call in self._seen.items() if call < self._calls - patience]
        for key in gone:
            del self._seen[key]
        for history in self._histories.values():
            history.collect(gone)


def _check_observation(column: Any, episode: SingleAgentEpisode) -> None:
    """Raises if another piece put other observations into the batch than the learner will see."""
    items = column.get(batch_key(episode)) if isinstance(column, dict) else None
    if items is None or not np.array_equal(items[-1], episode.get_observations(-1)):
        raise ValueError(
            "Attention expects the observations of the episodes, but a connector piece put others "
            "into the batch. Write them into the episodes instead, as RLlib's "
            "SingleAgentObservationPreprocessor does: then the learner sees the same."
        )


def _state(
    rows: list[tuple[SingleAgentEpisode, int, AttentionModule, RolloutHistory]],
) -> dict[str, Any]:
    """Returns the `STATE_IN` of one module's rows, of which the slots are given."""
    _, _, module, history = rows[0]
    handle = np.array([(slot, episode.t) for episode, slot, _, _ in rows])
    state = {HANDLE: handle}
    if history.num_features:
        state[FEATURES] = history.features[handle[:, 0], handle[:, 1] % history.size]
    return as_rows(module.state(state))


def _reload(episode: SingleAgentEpisode, module: AttentionModule, history: RolloutHistory) -> int:
    """Takes the past of an episode that the history does not know from the episode itself."""
    step, slot = episode.t, history.slot(episode.id_)
    known = min(len(episode) + episode.observations.lookback, history.context_len)
    slot = history.open(episode.id_, step - known, slot)
    if known:
        inputs = fragment_inputs(episode, module, len(episode))
        for i in range(known, 0, -1):
            history.write(slot, step - i, inputs.obs[-i], inputs.features[-i])
    return slot
