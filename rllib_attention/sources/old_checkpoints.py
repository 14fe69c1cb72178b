"""Takes a policy out of a checkpoint of RLlib's old API stack, without its workers and policies."""

import json
import pickle
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.checkpoints import Checkpointable

from rllib_attention.new_stack.choices import choose_id
from rllib_attention.new_stack.policy_parts import CALL, PolicyParts
from rllib_attention.sources.old_policy import is_attended, policy_parts

_ALGORITHM, _POLICY, _POLICIES = "algorithm_state", "policy_state", "policies"
_INFO = "rllib_checkpoint.json"


def is_one(path: Path) -> bool:
    """Returns whether a folder looks like a checkpoint of the old stack.

    Args:
        path: The folder.
    """
    if (path / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME).exists():
        return False
    return (path / _POLICIES).is_dir() or any(path.glob(f"{_POLICY}.*"))


def load_parts(path: Path, module_id: str | None, agent_id: Any) -> PolicyParts:
    """Takes a policy's parts out of a checkpoint of an Algorithm or of a Policy.

    Args:
        path: The checkpoint's folder.
        module_id: The policy's ID; None for the only one with attention.
        agent_id: None: a policy of the old stack is the same for each agent.

    Raises:
        ValueError: If it is not a checkpoint of pickles, there is no such policy, the policy has
            no attention, what is built around it is not known, or there is an `agent_id`.
    """
    if agent_id is not None:
        raise ValueError(
            "A policy of RLlib's old API stack acts alike for each agent: expected no `agent_id`, "
            f"got {agent_id!r}. Fix: `{CALL}, module_id={module_id!r})`."
        )
    states = {
        folder.name: _state(folder, _POLICY) for folder in (path / _POLICIES).glob("*") or ()
    } or {path.name: _state(path, _POLICY)}
    attended = [name for name, state in states.items() if is_attended(state)]
    chosen = choose_id(attended, states, module_id, CALL)
    return policy_parts(chosen, states[chosen])


def checkpoint_config(path: Path) -> AlgorithmConfig | None:
    """Returns the config of an Algorithm's checkpoint, None for a Policy's.

    Args:
        path: The checkpoint's folder.
    """
    if not (path / _POLICIES).is_dir():
        return None
    state = _state(path, _ALGORITHM)
    return state["algorithm_class"].get_default_config().update_from_dict(state["config"])


def _state(path: Path, name: str) -> dict[str, Any]:
    """Reads a state, as RLlib does: by pickle."""
    file = (path / name).with_suffix(".pkl")
    if file.is_file():
        return pickle.loads(file.read_bytes())
    info = path / _INFO
    found = json.loads(info.read_text()).get("format") if info.is_file() else None
    raise ValueError(
        f"AttentionPolicy expects {file.name!r} in a checkpoint of RLlib's old API stack at "
        f"{str(path)!r}, found none (its format: {found}). Fix: a checkpoint as `algo.save(path)` "
        "writes it; those that were converted to msgpack cannot be read."
    )
