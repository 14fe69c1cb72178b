"""What a module computed when its policy acted: actions' probabilities, and the critic's values.

Shapes: N sessions, A choices of an action.
"""

from collections.abc import Hashable
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModule


class Decision:
    """One call of a policy.

    Args:
        names: The sessions, in the order of the rows, (N,).
        single: Whether results are those of the only session, rather than a dict by session.
        batch: What the module was given.
        outputs: What it computed.
    """

    def __init__(
        self,
        names: tuple[Hashable, ...],
        single: bool,
        batch: dict[str, Any],
        outputs: dict[str, Any],
    ):
        self._names, self._single = names, single
        self._batch, self._outputs = batch, outputs

    def values(self, module: RLModule) -> Any:
        """Returns the critic's value in each session.

        Args:
            module: The module that acted.

        Raises:
            ValueError: If it has no critic.
        """
        if not isinstance(module.unwrapped(), ValueFunctionAPI):
            raise ValueError(
                "`values` expects a module with a critic of its own, such as PPO's, got a "
                f"{type(module.unwrapped()).__name__}. Use `policy.module` for what it computes "
                "instead."
            )
        with torch.no_grad():
            values = module.compute_values(dict(self._batch))
        return self._by_session(values.cpu().numpy().tolist())

    def action_probs(self, space: gym.Space) -> Any:
        """Returns the probability of each action in each session, (A,) or a list of such.

        Args:
            space: The module's action space.

        Raises:
            ValueError: If it is not Discrete or MultiDiscrete, or the module gave no distribution.
        """
        inputs = self._outputs.get(Columns.ACTION_DIST_INPUTS)
        if isinstance(space, gym.spaces.Discrete):
            sizes = [int(space.n)]
        else:
            sizes = [int(n) for n in getattr(space, "nvec", torch.empty(0)).reshape(-1)]
        if inputs is None or not sizes:
            raise ValueError(
                "`action_probs` expects Discrete or MultiDiscrete actions and a module that "
                f"computes their distribution, got {space} and {sorted(self._outputs)}."
            )
        parts = [part.softmax(-1).cpu().numpy() for part in inputs.split(sizes, dim=-1)]
        several = [list(row) for row in zip(*parts, strict=True)]
        return self._by_session(parts[0] if isinstance(space, gym.spaces.Discrete) else several)

    def _by_session(self, rows: Any) -> Any:
        return rows[0] if self._single else dict(zip(self._names, rows, strict=True))
