"""What a policy is made of, taken out of a checkpoint: a module and RLlib's connector pipelines."""

import functools
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import (
    AgentToModuleMapping,
    MeanStdFilter,
    NumpyToTensor,
    PrevActionsPrevRewards,
)
from ray.rllib.core import (
    COMPONENT_ENV_RUNNER,
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_attention.new_stack.connectors import AddRolloutContext
from rllib_attention.new_stack.connectors.attention_module import AttentionModule, inspect_module
from rllib_attention.new_stack.connectors.factories import AppendPieces

# The schedules of exploration have come to their end: for modules whose training is not known.
_AFTER_TRAINING = 2**62

# What errors call this.
_CALL = "AttentionPolicy.from_checkpoint(path"

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
        return bool(_attention(self.module).attention.prev_rewards) or any(
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


def load_parts(path: str | os.PathLike, module_id: str | None, agent_id: Any) -> PolicyParts:
    """Takes a policy's parts out of a checkpoint of an Algorithm or of an RLModule.

    Args:
        path: The checkpoint's folder.
        module_id: Which module acts; None for the only one with attention.
        agent_id: As which agent it acts; None for the first that is mapped to it.

    Raises:
        ValueError: If there is no such checkpoint, module or agent, or the module has no
            attention.
    """
    path = Path(path).absolute()
    learned = path / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE
    _check_checkpoint(path, learned)
    if not learned.is_dir():
        return module_parts(RLModule.from_checkpoint(path), module_id)
    modules = MultiRLModule.from_checkpoint(learned)
    chosen = choose_module(dict(modules.items()), module_id, _CALL)
    config, runner = _config(path), path / COMPONENT_ENV_RUNNER
    env_to_module, module_to_env = map(for_acting, _pipelines(path, config))
    mapping = agent_mapping(env_to_module)
    if mapping is not None:
        agent_id = _choose_agent(env_to_module, mapping, chosen, agent_id)
    history_len = _attention(modules[chosen]).attention.history_len
    return PolicyParts(
        chosen,
        modules[chosen],
        modules[chosen] if mapping is None else modules,
        env_to_module,
        module_to_env,
        None if mapping is None else agent_id,
        max(history_len, config.episode_lookback_horizon),
        _timestep(runner),
    )


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
    chosen = choose_module(modules, module_id, _CALL)
    module = modules[chosen]
    spaces = {INPUT_ENV_SINGLE_SPACES: (module.observation_space, module.action_space)}
    config = AlgorithmConfig().env_runners(
        env_to_module_connector=AppendPieces(None, (AddRolloutContext,))
    )
    return PolicyParts(
        chosen,
        module,
        module,
        for_acting(config.build_env_to_module_connector(spaces=spaces)),
        for_acting(config.build_module_to_env_connector(spaces=spaces)),
        None,
        _attention(module).attention.history_len,
        _AFTER_TRAINING,
    )


def algorithm_parts(algo: Algorithm, module_id: str | None, agent_id: Any) -> PolicyParts:
    """Returns the parts of a live algorithm's policy: copies of its weights and connectors.

    Args:
        algo: The algorithm.
        module_id: As for `load_parts`.
        agent_id: As for `load_parts`.

    Raises:
        ValueError: If it is of RLlib's old API stack, and as `load_parts`.
    """
    if not algo.config.enable_rl_module_and_learner:
        raise ValueError(
            "AttentionPolicy expects an Algorithm of RLlib's new API stack, got one of the old. "
            "Fix: `config.api_stack(True, True)`, or act by `algo.get_policy()`."
        )
    with tempfile.TemporaryDirectory() as path:
        return load_parts(algo.save_to_path(path), module_id, agent_id)


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


def checkpoint_config(path: str | os.PathLike) -> AlgorithmConfig | None:
    """Returns the config of an Algorithm's checkpoint, None for a module's.

    Args:
        path: The checkpoint's folder.
    """
    is_algorithm = issubclass(_class_and_args(Path(path))["class"], Algorithm)
    return _config(Path(path)) if is_algorithm else None


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


def _check_checkpoint(path: Path, learned: Path) -> None:
    if (path / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME).is_file():
        info = _class_and_args(path)
        if learned.is_dir() or issubclass(info["class"], RLModule):
            return
        found = f"one of a {info['class'].__name__}"
    elif any((path / name).exists() for name in ("policies", "policy_state.pkl")):
        found = "one of RLlib's old API stack, which `Policy.from_checkpoint(path)` reads"
    else:
        found = "none" if path.is_dir() else "no such folder"
    raise ValueError(
        "AttentionPolicy expects a checkpoint of an Algorithm or an RLModule of RLlib's new API "
        f"stack at {str(path)!r}, found {found}. Fix: "
        "`AttentionPolicy.from_checkpoint(algo.save_to_path())`."
    )


def _class_and_args(path: Path) -> dict[str, Any]:
    return pickle.loads((path / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME).read_bytes())


def _config(path: Path) -> AlgorithmConfig:
    return AlgorithmConfig.from_state(_class_and_args(path)["ctor_args_and_kwargs"][0][0])


def _pipelines(
    path: Path, config: AlgorithmConfig
) -> tuple[ConnectorPipelineV2, ConnectorPipelineV2]:
    """Returns the pipelines before and behind the modules of an Algorithm's checkpoint."""
    names = COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR
    # Offline algorithms have no runner; those that evaluate have the pipelines.
    for folder in (path / COMPONENT_ENV_RUNNER, path):
        if (folder / names[0]).is_dir():
            first, second = (ConnectorPipelineV2.from_checkpoint(folder / name) for name in names)
            return first, second
    spaces = {INPUT_ENV_SINGLE_SPACES: (config.observation_space, config.action_space)}
    return (
        config.build_env_to_module_connector(spaces=spaces),
        config.build_module_to_env_connector(spaces=spaces),
    )


def _timestep(runner: Path) -> int:
    file = (runner / Checkpointable.STATE_FILE_NAME).with_suffix(".pkl")
    if not file.is_file():
        return _AFTER_TRAINING
    return pickle.loads(file.read_bytes())[NUM_ENV_STEPS_SAMPLED_LIFETIME]


def _attention(module: RLModule) -> AttentionModule:
    found = inspect_module(module)
    assert found is not None
    return found


def choose_module(modules: Mapping[str, RLModule], module_id: str | None, call: str) -> str:
    """Returns the ID of the module with attention that was asked for.

    Args:
        modules: All modules by ID.
        module_id: Its ID; None for the only one with attention.
        call: What errors call the function that asks, such as "record_attention(source".

    Raises:
        ValueError: If there is no such module, or it has no attention.
    """
    found = [key for key, module in modules.items() if inspect_module(module) is not None]
    if module_id is None and len(found) == 1:
        return found[0]
    if module_id in found:
        return module_id
    if not found:
        raise ValueError(
            f"`{call})` expects a module with an attention encoder, but none of "
            f"{sorted(modules)} has one. Fix: train with `use_attention(config)`."
        )
    problem = "is missing" if module_id is None else f"is {module_id!r}"
    raise ValueError(
        f"`module_id` must name a module with attention, one of {sorted(found)}, but it {problem}. "
        f"Fix: `{call}, module_id={min(found)!r})`."
    )


def agent_mapping(pipeline: ConnectorPipelineV2) -> Any:
    """Returns the function from agents to modules of a multi-agent pipeline, None in others.

    Args:
        pipeline: An env-to-module pipeline.
    """
    for piece in pipeline[AgentToModuleMapping]:
        return piece.get_ctor_args_and_kwargs()[1]["agent_to_module_mapping_fn"]
    return None


def _choose_agent(
    pipeline: ConnectorPipelineV2, mapping: Any, module_id: str, agent_id: Any
) -> Any:
    """Returns the agent that was asked for, else the first that is mapped to the module."""
    agents = list(pipeline.input_observation_space.spaces)
    if agent_id is None:
        episode = MultiAgentEpisode()
        mine = [agent for agent in agents if mapping(agent, episode) == module_id]
        if mine:
            return mine[0]
    if agent_id in agents:
        return agent_id
    problem = (
        f"None of them is mapped to {module_id!r}" if agent_id is None else f"got {agent_id!r}"
    )
    raise ValueError(
        f"`agent_id` must name an agent of the environment, one of {agents}: {problem}. Fix: "
        f"`AttentionPolicy.from_checkpoint(path, {module_id!r}, agent_id={agents[0]!r})`."
    )
