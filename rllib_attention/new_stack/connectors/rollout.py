"""The env-to-module piece: each row's slot, and the raw inputs of the last steps."""

from typing import Any

import gymnasium as gym
import numpy as np
import tree
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

from rllib_attention.encoder.inputs import RolloutStep
from rllib_attention.encoder.rollout_memory import RolloutMemory
from rllib_attention.new_stack.connectors.attention_module import (
    AttentionModule,
    has_other_stateful,
    inspect_module,
)
from rllib_attention.new_stack.connectors.batch_items import (
    as_rows,
    batch_key,
    replace_batch_items,
    run_pieces,
)
from rllib_attention.new_stack.connectors.step_inputs import (
    carry_context,
    fragment_inputs,
    newest_row,
)


class AddRolloutContext(ConnectorV2):
    """Adds `STATE_IN` for modules with attention to the batch of the next forward pass.

    Where: the last of the custom env-to-module pieces, before RLlib's
    `AddObservationsFromEpisodesToBatch`.
    Reads: the newest observation (and previous actions and rewards) of each episode.
    Writes: `STATE_IN` with each row's slot and time step. RLlib's `AddTimeDim...` and
    `AddStates...` then have nothing to do: rows have no time dimension in a rollout. To episodes
    it adds nothing, save a fragment's context where RLlib's lookback is too short for it.
    Leaves alone: modules without attention; beside RNN modules it runs RLlib's `AddTimeDim...` and
    `AddStates...` for them.

    Args:
        input_observation_space: As for any piece.
        input_action_space: As for any piece.
        forgets_unseen: Whether a running episode that is missing from a call with other running
            ones is gone, as in RLlib's runners. Where each call shows only some of the running
            episodes, use False, and `forget` for those that are over.

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
        *,
        forgets_unseen: bool = True,
        **kwargs: Any,
    ):
        super().__init__(input_observation_space, input_action_space, **kwargs)
        self._forgets_unseen = forgets_unseen
        self._connected: dict[str | None, _Connected] = {}
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
        known = self._connect(rl_module)
        self._collect(episodes, known)
        # RLlib maps rows to modules by the first column, so observations come first. Even an
        # empty `STATE_IN` keeps `AddTimeDim...` from announcing a time dimension.
        has_own_obs = Columns.OBS in batch
        rnns = isinstance(rl_module, MultiRLModule) and has_other_stateful(
            rl_module, {module_id: found.module for module_id, found in known.items()}
        )
        batch = run_pieces(
            self._pieces if rnns else self._pieces[:1],
            rl_module=rl_module,
            batch=batch,
            episodes=episodes,
            explore=explore,
            shared_data=shared_data,
            **kwargs,
        )
        rows = []
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=True):
            if (found := known.get(episode.module_id)) is not None:
                rows.append((episode, found.record(episode), found))
                if has_own_obs:
                    _check_observation(batch[Columns.OBS], episode)
        if isinstance(rl_module, MultiRLModule):
            states = [(episode, found.state([episode], [slot])) for episode, slot, found in rows]
            replace_batch_items(batch, Columns.STATE_IN, states)
        elif rows:
            # Ready-made: RLlib would batch one item of each episode.
            running, slots, (found, *_) = zip(*rows, strict=True)
            batch[Columns.STATE_IN] = [found.state(running, slots)]
        self._carry_contexts(episodes, known)
        return batch

    def forget(self, episode_id: str) -> None:
        """Frees what is remembered of an episode, at the next call.

        Args:
            episode_id: The ID of a single-agent episode, or of an agent's.
        """
        for found in self._connected.values():
            if found.has_attention:
                found.memory.slots.end(episode_id)

    def _connect(self, rl_module: RLModule) -> "dict[str | None, _Connected]":
        """Returns the modules with attention by id, all connected to a memory.

        A module of one agent is found by None, which is what its episodes name.
        """
        is_multi = isinstance(rl_module, MultiRLModule)
        modules = dict(rl_module.items()) if is_multi else {None: rl_module}
        for module_id, module in modules.items():
            before = self._connected.get(module_id)
            if before is None or before.owner is not module:
                self._connected[module_id] = _Connected(module_id, module, before)
        return {
            module_id: found
            for module_id in modules
            if (found := self._connected[module_id]).has_attention
        }

    def _carry_contexts(
        self, episodes: list[EpisodeType], known: "dict[str | None, _Connected]"
    ) -> None:
        """Gives fragments their context where RLlib's lookback is too short for it."""
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            if not episode.t_started or len(episode) > 1:
                continue  # a whole episode, or one that has been looked at
            found = known.get(episode.module_id)
            if found is not None and not found.module.windowed:
                slot = found.memory.slots.get(episode.id_)
                if slot is not None:
                    carry_context(episode, found.module, found.memory.history, slot)

    def _collect(self, episodes: list[EpisodeType], known: "dict[str | None, _Connected]") -> None:
        """Frees the slots of episodes that have ended or are gone."""
        single = self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False)
        shown = [episode.id_ for episode in single]
        running = self._forgets_unseen and any(not episode.is_done for episode in episodes)
        for found in known.values():
            found.memory.slots.collect(shown, running=running)


class _Connected:
    """One RLModule and, if it has attention, what this runner remembers for it.

    Args:
        module_id: Its ID; None for the only module.
        owner: The RLModule.
        before: What was connected by this ID before; its memory lives on if it fits.
    """

    def __init__(self, module_id: str | None, owner: RLModule, before: "_Connected | None"):
        self.owner = owner
        inspected = inspect_module(owner)
        self.has_attention = inspected is not None
        if inspected is None:
            return
        self.module: AttentionModule = inspected
        name = "the RLModule" if module_id is None else f"RLModule {module_id!r}"
        encoders = self.module.encoders
        self.memory: RolloutMemory
        if before is not None and before.has_attention:
            self.memory = before.memory.taken_over(encoders, name)
        else:
            self.memory = RolloutMemory(encoders, name)
        # In training mode, RLlib would switch the whole tree back and forth in each step.
        owner.eval()

    def record(self, episode: SingleAgentEpisode) -> int:
        """Writes an episode's newest step into the history; returns its slot."""
        slots, history = self.memory.slots, self.memory.history
        slot, step = slots.get(episode.id_), episode.t
        if slot is None or not history.stands_before(slot, step):
            slot = self._reload(episode)
        obs = self.module.observation(episode.get_observations(-1))
        history.write(slot, step, np.asarray(obs), newest_row(episode, self.module.prev_inputs))
        if episode.is_done:
            slots.end(episode.id_)
        return slot

    def state(self, episodes: Any, slots: Any) -> dict[str, Any]:
        """Returns the `STATE_IN` of some running episodes' newest steps."""
        handle = np.array([(slot, e.t) for e, slot in zip(episodes, slots, strict=True)])
        step = RolloutStep(handle, self.memory.history.prev(*handle.T))
        return as_rows(self.module.state(step.to_state()))

    def _reload(self, episode: SingleAgentEpisode) -> int:
        """Takes the past of an episode that the history does not know from the episode itself."""
        slot, step = self.memory.slots.open(episode.id_), episode.t
        history = self.memory.history
        if not (len(episode) or episode.observations.lookback):
            history.begin(slot, step)
            return slot
        inputs = fragment_inputs(episode, self.module, len(episode))
        inputs = inputs.last(min(len(inputs.obs), history.context_len))
        history.fill(slot, step - len(inputs.obs), inputs.obs, inputs.rows)
        return slot


def _check_observation(column: Any, episode: SingleAgentEpisode) -> None:
    """Raises if another piece put other observations into the batch than the learner will see."""
    items = column.get(batch_key(episode)) if isinstance(column, dict) else None
    same = items is not None and _equal(items[-1], episode.get_observations(-1))
    if not same:
        raise ValueError(
            "Attention expects the observations of the episodes, but a connector piece put others "
            "into the batch. Write them into the episodes instead, as RLlib's "
            "SingleAgentObservationPreprocessor does: then the learner sees the same."
        )


def _equal(first: Any, second: Any) -> bool:
    """Returns whether two observations are the same."""
    try:
        tree.assert_same_structure(first, second)
    except (TypeError, ValueError):
        return False
    pairs = zip(tree.flatten(first), tree.flatten(second), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
