"""Connector factories for RLlib's configs: the user's pieces, then ours."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from ray.rllib.connectors.connector_v2 import ConnectorV2

from rllib_attention.new_stack.connectors.chunks import AddContextToTrainBatch


@dataclasses.dataclass(frozen=True)
class AppendPieces:
    """A connector factory for RLlib: the user's pieces, then ours.

    Attributes:
        user: The user's factory, or None.
        make: Builds our piece.
    """

    user: Callable[..., Any] | None
    make: Callable[[], ConnectorV2]

    def __call__(self, *args: Any) -> list[ConnectorV2]:
        """Builds the pieces.

        Args:
            *args: What RLlib hands to factories: `env, spaces, device` or two spaces.
        """
        return [*as_list(self._call_user(args)), self.make()]

    def _call_user(self, args: tuple) -> Any:
        if self.user is None:
            return []
        # RLlib still accepts factories of fewer arguments.
        parameters = inspect.signature(self.user).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return self.user(*args)
        positional = [
            p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        return self.user(*args[: len(positional)])


@dataclasses.dataclass(frozen=True)
class MakeContextPiece:
    """Builds the train piece of the sequence path; unlike a lambda it can be pickled by name.

    Attributes:
        next_observations: Whether the algorithm's learner wants `NEXT_OBS`.
    """

    next_observations: bool

    def __call__(self) -> ConnectorV2:
        """Builds the piece."""
        return AddContextToTrainBatch(next_observations=self.next_observations)


def as_list(value: Any) -> list:
    """Returns the items of a list or tuple, none for None, else the value alone."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
