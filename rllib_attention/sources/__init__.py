"""Where a policy comes from: checkpoints and live algorithms of both of RLlib's API stacks."""

import os
import tempfile
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention.new_stack import checkpoints
from rllib_attention.new_stack.policy_parts import PolicyParts
from rllib_attention.sources import old_checkpoints


def load_parts(path: str | os.PathLike, module_id: str | None, agent_id: Any) -> PolicyParts:
    """Takes a policy's parts out of a checkpoint.

    Args:
        path: The checkpoint's folder: of an Algorithm of either stack, an RLModule, or a Policy.
        module_id: Which module (old stack: policy) acts; None for the only one with attention.
        agent_id: As which agent it acts; None for the first that is mapped to it.

    Raises:
        ValueError: If there is no such checkpoint, module or agent, or the module has no
            attention.
    """
    path = Path(path).absolute()
    stack = old_checkpoints if old_checkpoints.is_one(path) else checkpoints
    return stack.load_parts(path, module_id, agent_id)


def algorithm_parts(algo: Algorithm, module_id: str | None, agent_id: Any) -> PolicyParts:
    """Returns the parts of a live algorithm's policy: copies of its weights and connectors.

    Args:
        algo: The algorithm.
        module_id: As for `load_parts`.
        agent_id: As for `load_parts`.

    Raises:
        ValueError: As `load_parts`.
    """
    with tempfile.TemporaryDirectory() as path:
        if algo.config.enable_rl_module_and_learner:
            algo.save_to_path(path)
        else:
            algo.save_checkpoint(path)
        return load_parts(path, module_id, agent_id)


def checkpoint_config(path: str | os.PathLike) -> AlgorithmConfig | None:
    """Returns the config of an Algorithm's checkpoint, None for that of a module or a policy.

    Args:
        path: The checkpoint's folder.
    """
    path = Path(path).absolute()
    stack = old_checkpoints if old_checkpoints.is_one(path) else checkpoints
    return stack.checkpoint_config(path)
