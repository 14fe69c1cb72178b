"""Takes a policy out of a checkpoint of RLlib's new API stack."""

import os
import pickle
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.core import (
    COMPONENT_ENV_RUNNER,
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
)
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_attention.new_stack.choices import agent_mapping, choose_agent, choose_module
from rllib_attention.new_stack.policy_parts import (
    AFTER_TRAINING,
    CALL,
    PolicyParts,
    attention_of,
    for_acting,
    module_parts,
)


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
    chosen = choose_module(dict(modules.items()), module_id, CALL)
    config, runner = _config(path), path / COMPONENT_ENV_RUNNER
    env_to_module, module_to_env = map(for_acting, _pipelines(path, config))
    mapping = agent_mapping(env_to_module)
    if mapping is not None:
        agent_id = choose_agent(env_to_module, mapping, chosen, agent_id)
    history_len = attention_of(modules[chosen]).attention.history_len
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


def checkpoint_config(path: str | os.PathLike) -> AlgorithmConfig | None:
    """Returns the config of an Algorithm's checkpoint, None for a module's.

    Args:
        path: The checkpoint's folder.
    """
    is_algorithm = issubclass(_class_and_args(Path(path))["class"], Algorithm)
    return _config(Path(path)) if is_algorithm else None


def _check_checkpoint(path: Path, learned: Path) -> None:
    if (path / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME).is_file():
        info = _class_and_args(path)
        if learned.is_dir() or issubclass(info["class"], RLModule):
            return
        found = f"one of a {info['class'].__name__}"
    else:
        found = "none" if path.is_dir() else "no such folder"
    raise ValueError(
        "AttentionPolicy expects a checkpoint of an Algorithm, an RLModule or, of RLlib's old "
        f"API stack, a Policy at {str(path)!r}, found {found}. Fix: "
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
        return AFTER_TRAINING
    return pickle.loads(file.read_bytes())[NUM_ENV_STEPS_SAMPLED_LIFETIME]
