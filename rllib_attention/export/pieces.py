"""RLlib's connector pieces around a module, as functions of batched tensors.

A piece that is not known here is refused: what it does to observations or actions would be missing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    AgentToModuleMapping,
    BatchIndividualItems,
    NumpyToTensor,
    TensorToNumpy,
)
from ray.rllib.connectors.common.flatten_observations import FlattenObservations
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.connectors.module_to_env import (
    GetActions,
    ListifyDataForVectorEnv,
    ModuleToAgentUnmapping,
    NormalizeAndClipActions,
    RemoveSingleTsTimeRankFromBatch,
    UnBatchToIndividualItems,
)
from ray.rllib.utils.filter import RunningStat
from ray.rllib.utils.numpy import SMALL_NUMBER
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space
from ray.rllib.utils.torch_utils import flatten_inputs_to_1d_tensor
from torch import Tensor

from rllib_attention.new_stack.connectors import AddRolloutContext
from rllib_attention.new_stack.policy_parts import PolicyParts

Change = Callable[[Any], Any]

# Pieces that batch, name, convert, or do what `PolicyStep` does itself.
_NO_CHANGE = {
    AddObservationsFromEpisodesToBatch,
    AddRolloutContext,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    AgentToModuleMapping,
    BatchIndividualItems,
    GetActions,
    ListifyDataForVectorEnv,
    ModuleToAgentUnmapping,
    NumpyToTensor,
    RemoveSingleTsTimeRankFromBatch,
    TensorToNumpy,
    UnBatchToIndividualItems,
}


def observation_changes(parts: PolicyParts) -> list[Change]:
    """Returns what a policy's pipeline does to observations, in its order.

    Args:
        parts: What the policy is made of.

    Raises:
        ValueError: If a piece cannot be exported.
    """
    known = {MeanStdFilter: _filtering, FlattenObservations: _flattening}
    return _changes(parts.env_to_module, known, parts.agent_id)


def action_changes(parts: PolicyParts) -> list[Change]:
    """Returns what a policy's pipeline does to actions on their way to the environment.

    Args:
        parts: What the policy is made of.

    Raises:
        ValueError: If a piece cannot be exported.
    """
    return _changes(parts.module_to_env, {NormalizeAndClipActions: _bounding}, parts.agent_id)


def _changes(
    pipeline: ConnectorPipelineV2,
    known: Mapping[Any, Callable[[Any, Any], Change]],
    agent_id: Any,
) -> list[Change]:
    found = []
    for piece in pipeline.connectors:
        # Exactly these: a subclass may do something else.
        if type(piece) in known:
            found.append(known[type(piece)](piece, agent_id))
        elif type(piece) not in _NO_CHANGE:
            raise ValueError(
                f"A policy cannot be exported with its connector piece {type(piece).__name__}: "
                f"of those that change something, {sorted(kind.__name__ for kind in known)} can. "
                "Fix: act with `AttentionPolicy` itself, or do the piece's work in the "
                "environment and train without it."
            )
    return found


def _filtering(piece: MeanStdFilter, agent_id: Any) -> Change:
    """Standardises observations as the filter does, in float64."""
    state = piece.get_state()[agent_id]
    if state["shape"] is None:  # of discrete observations
        return lambda obs: obs
    [stat] = map(RunningStat.from_state, state["running_stats"])
    mean, std = (torch.from_numpy(np.array(x, np.float64)) for x in (stat.mean, stat.std))
    clip = state["clip_by_value"]

    def change(obs: Tensor) -> Tensor:
        x = obs.double()
        x = x - mean if state["de_mean_to_zero"] else x
        x = x / (std + SMALL_NUMBER) if state["de_std_to_one"] else x
        return (x.clamp(-clip, clip) if clip else x).to(obs.dtype)

    return change


def _flattening(piece: FlattenObservations, agent_id: Any) -> Change:
    """Joins all parts, discrete ones one-hot encoded."""
    options = piece.get_ctor_args_and_kwargs()[1]
    if options.get("keys_to_remove") or options.get("as_learner_connector"):
        raise ValueError(
            "A policy cannot be exported with FlattenObservations(keys_to_remove=...). Fix: leave "
            "these parts out in an environment wrapper."
        )
    agents = options.get("agent_ids")
    if agents is not None and agent_id not in agents:
        return lambda obs: obs
    struct = get_base_struct_from_space(_of_agent(piece.input_observation_space, agent_id))
    return lambda obs: flatten_inputs_to_1d_tensor(obs, spaces_struct=struct)


def _bounding(piece: NormalizeAndClipActions, agent_id: Any) -> Change:
    """Brings Box actions within their bounds, as `unsquash_action` and `clip_action` do."""
    struct = get_base_struct_from_space(_of_agent(piece.input_action_space, agent_id))

    def bound(action: Tensor, space: gym.Space) -> Tensor:
        if not isinstance(space, gym.spaces.Box) or not action.is_floating_point():
            return action
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        if piece.normalize_actions:
            if not (space.bounded_below.all() and space.bounded_above.all()):
                return action
            action = low + (action + 1.0) * (high - low) / 2.0
        elif not piece.clip_actions:
            return action
        return action.clamp(low, high)

    return lambda action: tree.map_structure_up_to(struct, bound, action, struct)


def _of_agent(space: Any, agent_id: Any) -> gym.Space:
    return space if agent_id is None else space[agent_id]
