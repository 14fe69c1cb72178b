"""What a policy is made of: a module and RLlib's connector pipelines around it."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import (
    MeanStdFilter,
    NumpyToTensor,
    PrevActionsPrevRewards,
)
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rllib_attention.new_stack.choices import choose_module
from rllib_attention.new_stack.connectors import AddRolloutContext
from rllib_attention.new_stack.connectors.attention_module import AttentionModule, inspect_module
from rllib_attention.new_stack.connectors.factories import AppendPieces

AFTER_TRAINING = 2**62
"""The schedules of exploration have come to their end: for modules whose training is not known."""

CALL = "AttentionPolicy.from_checkpoint(path"
"""What errors call the function that takes a policy out."""

# Constructor options of connector pieces that act outside of a runner.
_OPTIONS: dict[type[ConnectorV2], dict[str, Any]] = {
    AddRolloutContext: {"forgets_unseen": False},
    MeanStdFilter: {"update_stats": False},
    NumpyToTensor: {"device": None},
}


@dataclass(frozen=True)
class PolicyParts:
    """What a policy is made of.

    Attributes:
        module_id: The ID of the module that acts.
        module: The module that acts.
        runner_module: What the pipelines are given: the module, or a MultiRLModule with it.
        env_to_module: RLlib's pipeline before the module, as in acting: filters do not learn.
        module_to_env: RLlib's pipeline behind it.
        agent_id: The agent as which it acts in multi-agent pipelines; None in others.
        lookback: Past steps that connector pieces may look back to.
        timestep: Env steps of the training, which schedules of exploration go by.
    """

    module_id: str
    module: RLModule
    runner_module: RLModule
    env_to_module: ConnectorPipelineV2
    module_to_env: ConnectorPipelineV2
    agent_id: Any
    lookback: int
    timestep: int

    @functools.cached_property
    def reads_rewards(self) -> bool:
        """Whether the module is given previous rewards."""
        pieces = self.env_to_module[PrevActionsPrevRewards]
        return bool(attention_of(self.module).attention.prev_rewards) or any(
            piece.n_prev_rewards for piece in pieces
        )

    @property
    def observation_space(self) -> gym.Space:
        """The space of the observations that the policy is given."""
        return self._of_agent(self.env_to_module.input_observation_space)

    @property
    def action_space(self) -> gym.Space:
        """The space of the actions that the policy returns."""
        return self._of_agent(self.env_to_module.input_action_space)

    def _of_agent(self, space: Any) -> gym.Space:
        return space if self.agent_id is None else space[self.agent_id]


def module_parts(rl_module: RLModule, module_id: str | None) -> PolicyParts:
    """Returns the parts of a policy around a module, with RLlib's default connectors.

    Args:
        rl_module: The module, or a MultiRLModule.
        module_id: Which of its modules acts; None for the only one with attention.

    Raises:
        ValueError: If there is no such module, or it has no attention.
    """
    is_multi = isinstance(rl_module, MultiRLModule)
    modules = dict(rl_module.items()) if is_multi else {DEFAULT_MODULE_ID: rl_module}
    chosen = choose_module(modules, module_id, CALL)
    return connected_parts(chosen, modules[chosen], modules[chosen].observation_space)


def connected_parts(
    module_id: str,
    module: RLModule,
    observation_space: gym.Space,
    *makers: Callable[[], ConnectorV2],
    timestep: int = AFTER_TRAINING,
    **actions: Any,
) -> PolicyParts:
    """Returns the parts of a policy around a module of one agent.

    Args:
        module_id: Its ID.
        module: The module.
        observation_space: Of the observations that the policy is given.
        *makers: Build the pieces that turn them into what the module takes.
        timestep: Env steps of the training.
        **actions: Options of `AlgorithmConfig.environment`: how actions reach their bounds.
    """
    spaces = {INPUT_ENV_SINGLE_SPACES: (observation_space, module.action_space)}
    pieces = AppendPieces(None, (*makers, AddRolloutContext))
    config = AlgorithmConfig().env_runners(env_to_module_connector=pieces).environment(**actions)
    return PolicyParts(
        module_id,
        module,
        module,
        for_acting(config.build_env_to_module_connector(spaces=spaces)),
        for_acting(config.build_module_to_env_connector(spaces=spaces)),
        None,
        attention_of(module).attention.history_len,
        timestep,
    )


def copy_parts(parts: PolicyParts) -> PolicyParts:
    """Returns the same policy with a module and connectors of its own.

    Args:
        parts: What the policy is made of.
    """
    with tempfile.TemporaryDirectory() as path:
        module = RLModule.from_checkpoint(parts.runner_module.save_to_path(path))
    return replace(
        parts,
        module=module if parts.agent_id is None else module[parts.module_id],
        runner_module=module,
        env_to_module=for_acting(parts.env_to_module),
        module_to_env=for_acting(parts.module_to_env),
    )


def for_acting(pipeline: ConnectorPipelineV2) -> ConnectorPipelineV2:
    """Returns a copy of a runner's pipeline that only acts: its filters do not learn."""
    kind, args, options = _for_acting((type(pipeline), *pipeline.get_ctor_args_and_kwargs()))
    copied = kind(*args, **options)
    copied.set_state(pipeline.get_state())
    return copied


def _for_acting(piece: tuple) -> tuple:
    """Changes the constructor options of a piece, as RLlib's checkpoints hold them."""
    kind, args, options = piece
    if "connectors" in options:
        options = options | {"connectors": [_for_acting(part) for part in options["connectors"]]}
    for base, changes in _OPTIONS.items():
        if issubclass(kind, base):
            options = options | changes
    return kind, args, options


def attention_of(module: RLModule) -> AttentionModule:
    """Returns what there is to know of a policy's module."""
    found = inspect_module(module)
    assert found is not None
    return found
