"""One pass of a policy over some sessions: pipeline, module, pipeline; and what it computed."""

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.utils.spaces.space_utils import unbatch

from rllib_attention.new_stack.connectors import AddRolloutContext
from rllib_attention.new_stack.decision import Decision
from rllib_attention.new_stack.policy_parts import PolicyParts
from rllib_attention.new_stack.sessions import Session


class PolicyPass:
    """Acts in sessions that are given their observations already.

    Args:
        parts: What the policy is made of.

    Attributes:
        last: The latest decision; None before the first, and since sessions have moved on.

    Raises:
        ValueError: If the pipelines have no memory for the module, or several.
    """

    def __init__(self, parts: PolicyParts):
        self._parts = parts
        self._memory = _only(parts.env_to_module[AddRolloutContext])
        self._random = torch.Generator()
        self._random.seed()
        self.last: Decision | None = None

    def seed(self, seed: int) -> None:
        """Makes exploration repeatable."""
        self._random.manual_seed(seed)

    def decide(
        self, names: tuple[Hashable, ...], sessions: list[Session], explore: bool, single: bool
    ) -> tuple[list, list]:
        """Computes the next action of each session.

        Args:
            names: The sessions' names.
            sessions: The sessions.
            explore: Whether to sample.
            single: Whether the decision is about the one session of a plain call.

        Returns:
            The actions of the module, and those for the environment.
        """
        parts = self._parts
        batch, shared_data = self.observe(sessions, explore)
        with torch.no_grad(), self._own_random_numbers(explore):
            if explore:
                outputs = parts.runner_module.forward_exploration(batch, t=parts.timestep)
            else:
                outputs = parts.runner_module.forward_inference(batch)
            self.last = Decision(names, single, self._of_module(batch), self._of_module(outputs))
            columns = parts.module_to_env(
                rl_module=parts.runner_module,
                batch=outputs,
                episodes=[session.episode for session in sessions],
                explore=explore,
                shared_data=shared_data,
            )
        computed = columns[Columns.ACTIONS]
        returned = columns.get(Columns.ACTIONS_FOR_ENV, computed)
        if parts.agent_id is None:
            return unbatch(computed), unbatch(returned)
        return [a[parts.agent_id] for a in computed], [a[parts.agent_id] for a in returned]

    def observe(self, sessions: list[Session], explore: bool) -> tuple[dict, dict]:
        """Runs the env-to-module pipeline on the sessions' newest observations."""
        self.last = None  # the memory that it was computed from moves on
        shared_data: dict[str, Any] = {}
        batch = self._parts.env_to_module(
            rl_module=self._parts.runner_module,
            batch={},
            episodes=[session.episode for session in sessions],
            explore=explore,
            shared_data=shared_data,
        )
        return batch, shared_data

    def forget(self, session: Session | None) -> None:
        """Frees what is remembered of a session, if it is one that has begun."""
        episode_id = None if session is None else session.episode_id
        if episode_id is not None:
            self._memory.forget(episode_id)

    def _of_module(self, columns: dict[str, Any]) -> dict[str, Any]:
        return dict(columns if self._parts.agent_id is None else columns[self._parts.module_id])

    @contextlib.contextmanager
    def _own_random_numbers(self, explore: bool) -> Iterator[None]:
        """RLlib samples from torch's global generator: it gets our state, and its own back."""
        if not explore:
            yield
            return
        before = torch.get_rng_state()
        torch.set_rng_state(self._random.get_state())
        try:
            yield
        finally:
            self._random.set_state(torch.get_rng_state())
            torch.set_rng_state(before)


def _only(pieces: list[ConnectorV2]) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    raise ValueError(
        f"The env-to-module pipeline must hold AddRolloutContext once, got {len(pieces)} times. "
        "Fix: train with `use_attention(config)`."
    )
