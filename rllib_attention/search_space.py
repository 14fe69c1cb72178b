"""`AttentionConfig` fields that may be Ray Tune search spaces."""

import itertools
from dataclasses import dataclass
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.search.sample import Categorical, Domain, Float, Integer

from rllib_attention.config import AttentionConfig


@dataclass(frozen=True)
class SearchSpace:
    """Options of which some are left to Ray Tune.

    Attributes:
        fixed: The options, with defaults in place of searched fields.
        searched: Search spaces by field.
    """

    fixed: AttentionConfig
    searched: dict[str, Any]

    @property
    def is_searched(self) -> bool:
        """Whether Tune decides any field."""
        return bool(self.searched)

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, search spaces included."""
        return self.fixed.to_dict() | self.searched

    def candidates(self) -> list[AttentionConfig]:
        """Returns a config for each combination of the searched fields' extreme values.

        Combinations that are not valid are left out: Tune may never draw them, and a trial that
        draws one says so itself.

        Raises:
            ValueError: If no combination is valid.
        """
        return _valid_configs(self.fixed, {}, self.searched)


def split_overrides(attention: AttentionConfig | None, overrides: dict[str, Any]) -> SearchSpace:
    """Separates plain values from search spaces, and checks both.

    Args:
        attention: The options to start from; None for the defaults.
        overrides: Fields of `AttentionConfig`.

    Raises:
        TypeError: If `attention` is not an AttentionConfig, or an option has a wrong type.
        ValueError: If an option is unknown or has a wrong value.
    """
    if attention is None:
        attention = AttentionConfig()
    if not isinstance(attention, AttentionConfig):
        raise TypeError(
            "`attention` must be an AttentionConfig, got "
            f"{attention!r}. Use `use_attention(config, AttentionConfig(...))`, or pass fields by "
            "name: `use_attention(config, window=32)`."
        )
    searched = {key: value for key, value in overrides.items() if is_search_space(value)}
    fixed = {key: value for key, value in overrides.items() if key not in searched}
    # Raises for unknown names, whatever their values.
    AttentionConfig().replace(**{key: getattr(AttentionConfig(), key, 0) for key in searched})
    # Plain values may be valid only beside a searched field: any valid combination will do.
    return SearchSpace(_valid_configs(attention, fixed, searched)[0], searched)


def is_search_space(value: Any) -> bool:
    """Returns whether Tune would resolve a value."""
    return isinstance(value, Domain) or (isinstance(value, dict) and "grid_search" in value)


def known_setting(config: AlgorithmConfig, name: str) -> Any:
    """Returns a setting of a user's config; None if it is not there or left to Tune.

    What Tune decides is checked when a trial builds its algorithm.

    Args:
        config: The user's config.
        name: The setting's name.
    """
    value = getattr(config, name, None)
    parts = value.values() if isinstance(value, dict) else ()
    if is_search_space(value) or any(map(is_search_space, parts)):
        return None
    return value


def longest_history(space: SearchSpace) -> int:
    """Returns the longest history that any trial of a sweep needs."""
    return max(attention.history_len for attention in space.candidates())


def _valid_configs(
    attention: AttentionConfig, fixed: dict[str, Any], searched: dict[str, Any]
) -> list[AttentionConfig]:
    """Returns the valid combinations of plain values and the searched fields' extreme values."""
    if not searched:
        return [attention.replace(**fixed)]
    found: list[AttentionConfig] = []
    error: Exception | None = None
    for values in itertools.product(*(_extremes(space) for space in searched.values())):
        try:
            found.append(attention.replace(**fixed, **dict(zip(searched, values, strict=True))))
        except (TypeError, ValueError) as failure:
            error = failure
    if not found:
        raise ValueError(
            f"Expected a search space with a valid combination of options, got {searched}: "
            f"{error or 'it is empty'}. Use e.g. "
            "`use_attention(config, window=tune.grid_search([16, 64]))`."
        ) from error
    return found


def _extremes(space: Any) -> list[Any]:
    """Returns all values of a finite search space, lowest and highest of a range."""
    if isinstance(space, dict):
        return list(space["grid_search"])
    if isinstance(space, Categorical):
        return list(space.categories)
    if isinstance(space, Integer):
        return [space.lower, space.upper - 1]
    if isinstance(space, Float):
        return [space.lower, space.upper]
    return [space.sample()]
