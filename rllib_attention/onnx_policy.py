"""Acting with an exported policy: `onnxruntime` and `numpy` alone, and nothing is unpickled.

Shapes: N sessions of a call.
"""

import json
import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

_METADATA, _ACTIONS, _FOR_ENV = "rllib_attention", "actions", "actions_for_env"
_PREV_REWARDS = "prev_rewards"


class OnnxPolicy:
    """A policy that `AttentionPolicy.export_onnx` wrote, which acts session by session.

    It acts as `AttentionPolicy` does without exploration, needs neither torch nor Ray, and opening
    the file runs no code of whoever wrote it, unlike a checkpoint.

    Args:
        path: The file.

    Raises:
        ImportError: If onnxruntime is not installed.
        ValueError: If the file is none of `export_onnx`.
    """

    def __init__(self, path: str | os.PathLike):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                "`OnnxPolicy` needs onnxruntime, not installed here. Fix: `pip install "
                'onnxruntime`, or `pip install "rllib-attention[export]"`.'
            ) from error
        self._runtime = onnxruntime.InferenceSession(os.fspath(path))
        found = self._runtime.get_modelmeta().custom_metadata_map.get(_METADATA)
        about = json.loads(found) if found else {}
        if not {"context", "structure"} <= about.keys():
            raise ValueError(
                f"`OnnxPolicy` expects a file of `AttentionPolicy.export_onnx`, got {str(path)!r} "
                f"with the metadata {sorted(about)}. Fix: `policy.export_onnx(path)`, by this "
                "version of the package."
            )
        self._context, self._structure = about["context"], about["structure"]
        self._given = {given.name: given.type for given in self._runtime.get_inputs()}
        self._returned = [output.name for output in self._runtime.get_outputs()]
        # Of each session the next step's inputs: context, and what was done before.
        self._sessions: dict[Hashable, dict[str, np.ndarray]] = {}

    @property
    def reads_rewards(self) -> bool:
        """Whether `act` needs the reward of the step before."""
        return _PREV_REWARDS in self._given

    @property
    def sessions(self) -> tuple[Hashable, ...]:
        """The open sessions."""
        return tuple(self._sessions)

    def reset(self, session: Hashable = None) -> None:
        """Begins a session anew with its next step.

        Args:
            session: Its name; None is that of the session of a plain `act(obs)`.
        """
        self._sessions.pop(session, None)

    close = reset

    def act(self, obs: Any, *, prev_reward: Any = None) -> Any:
        """Returns the next action, ready for the environment.

        Args:
            obs: The next observation.
            prev_reward: The reward of the step before. Needed, save in a session's first step,
                where the policy reads previous rewards.

        Raises:
            ValueError: If an observation does not fit, or a needed reward is missing.
        """
        return self.act_all({None: obs}, prev_reward={None: prev_reward})[None]

    def act_all(
        self, obs: Mapping[Hashable, Any], *, prev_reward: Mapping[Hashable, Any] | None = None
    ) -> dict[Hashable, Any]:
        """Returns the next action in each of some sessions, decided in one batch.

        Args:
            obs: {session: observation}. Sessions that are not open are opened.
            prev_reward: {session: reward}.

        Raises:
            ValueError: As `act`.
        """
        if not obs:
            return {}
        rewards = prev_reward or {}
        rows = [self._inputs(name, one, rewards.get(name)) for name, one in obs.items()]
        inputs = {name: np.stack([row[name] for row in rows]) for name in self._given}
        outputs = dict(zip(self._returned, self._runtime.run(None, inputs), strict=True))
        after = {name: outputs[part["next"]] for name, part in self._context.items()}
        done = {f"prev_{name}": x for name, x in outputs.items()}
        after |= {name: done[name] for name in self._given if name in done}
        actions = {}
        for row, name in enumerate(obs):
            self._sessions[name] = {key: array[row] for key, array in after.items()}
            actions[name] = _nested(self._structure[_FOR_ENV], outputs, row)
        return actions

    def _inputs(self, session: Hashable, obs: Any, reward: Any) -> dict[str, np.ndarray]:
        """Returns a session's row of each input. Nothing moves yet."""
        known = self._sessions.get(session)
        row = dict(known or {})
        for name, (shape, dtype) in self._zeros().items():
            row.setdefault(name, np.zeros(shape, dtype))
        if self.reads_rewards:
            if known and reward is None:
                raise ValueError(
                    f"The policy reads previous rewards, but that of session {session!r} is "
                    "missing. Fix: `act(obs, prev_reward=...)`."
                )
            row[_PREV_REWARDS] = np.asarray(reward or 0.0, np.float32)
        for name, part in _flat(self._structure["obs"], obs, session):
            expected = self._structure["shapes"][name]
            array = np.asarray(part)
            if list(array.shape) != expected:
                raise ValueError(
                    f"`act` expects {name!r} of shape {expected}, got {list(array.shape)} in "
                    f"session {session!r}. Fix: one observation, without a batch dimension."
                )
            row[name] = array.astype(_TYPES[self._given[name]])
        return row

    def _zeros(self) -> dict[str, tuple[list[int], Any]]:
        """Returns shape and type of what a new session is given."""
        found = {name: (part["shape"], part["dtype"]) for name, part in self._context.items()}
        for name, shape in self._structure["shapes"].items():
            if name.startswith("prev_"):
                found[name] = shape, _TYPES[self._given[name]]
        return found


_TYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def _nested(structure: Any, outputs: Mapping[str, np.ndarray], row: int) -> Any:
    """Returns a row of some outputs, nested as their names are."""
    if isinstance(structure, dict):
        return {key: _nested(part, outputs, row) for key, part in structure.items()}
    if isinstance(structure, list):
        return tuple(_nested(part, outputs, row) for part in structure)
    return outputs[structure][row]


def _flat(structure: Any, obs: Any, session: Hashable) -> list[tuple[str, Any]]:
    """Undoes `_nested` for one observation."""
    if isinstance(structure, str):
        return [(structure, obs)]
    keys = list(structure) if isinstance(structure, dict) else range(len(structure))
    try:
        pairs = [(structure[key], obs[key]) for key in keys]
        if len(pairs) != len(obs):
            raise KeyError
    except (KeyError, TypeError, IndexError):
        raise ValueError(
            f"`act` expects an observation of the parts {list(keys)}, got {type(obs).__name__} in "
            f"session {session!r}. Fix: an observation as the environment returns it."
        ) from None
    return [found for pair in pairs for found in _flat(*pair, session)]
