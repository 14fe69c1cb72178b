"""Connector factories for RLlib's configs: the user's pieces, then ours."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2

from rllib_attention.compat import CONNECTORS, connector_factory


@dataclasses.dataclass(frozen=True)
class AppendPieces:
    """A connector factory for RLlib: the user's pieces, then ours.

    Attributes:
        user: The user's factory, or None.
        makers: Build our pieces.
    """

    user: Callable[..., Any] | None
    makers: tuple[Callable[[], ConnectorV2], ...]

    def __call__(self, *args: Any) -> list[ConnectorV2]:
        """Builds the pieces.

        Args:
            *args: What RLlib hands to factories: `env, spaces, device` or two spaces.
        """
        return [*as_list(self._call_user(args)), *(make() for make in self.makers)]

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


def is_connected(config: AlgorithmConfig) -> bool:
    """Returns whether `use_attention` has put its connector pieces into a config.

    Args:
        config: A config of the new API stack.
    """
    return all(isinstance(connector_factory(config, name), AppendPieces) for name in CONNECTORS)


def as_list(value: Any) -> list:
    """Returns the items of a list or tuple, none for None, else the value alone."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
