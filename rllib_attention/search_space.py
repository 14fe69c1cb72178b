"""`AttentionConfig` fields that may be Ray Tune search spaces."""

import itertools
import math
import numbers
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.search.sample import Categorical, Domain, Float, Integer, Quantized

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


# From blocks that hardly memorise noise to blocks that learn to copy soonest (`docs/learning.md`).
_LR_FACTORS = (0.1, 0.3, 1.0)
# From tokens that leave room for a distant cue to those of a task that the present nearly solves.
_TOKEN_SIZES = (0.4, 1.0, 2.5)
# What `attention_search_space` starts from, by its argument's name.
_SMALLEST = {"max_layers": 1, "max_window": 2, "max_heads": 1, "max_dim": 8, "max_dilation": 1}


def attention_search_space(
    *,
    max_layers: int = 3,
    max_window: int = 64,
    max_heads: int = 4,
    max_dim: int = 128,
    max_dilation: int = 1,
) -> dict[str, Domain]:
    """Returns a search space over shape and learning rate of attention, ready for `use_attention`.

    Layers are counted up to their maximum. Windows go from 8, heads from 1, and widths from 32,
    each doubling up to its maximum, so that every combination is valid: widths are multiples of
    heads, and heads have an even size. The blocks' share of the learning rate is searched from 0.1
    to 1; the learning rate itself is the algorithm's own and is searched beside it, as in the
    example.

    Args:
        max_layers: Most layers.
        max_window: Longest window, in time steps. Choose it such that `max_window` steps back lies
            what the task wants remembered.
        max_heads: Most heads.
        max_dim: Largest width. Together with `max_heads` it must leave heads of two numbers or
            more at the smallest width.
        max_dilation: Largest dilation. Above 1 it is searched as well, doubling from 1, and layers
            are counted from 2, as a single one has none. Every trial keeps the raw steps that the
            largest one needs, `(window - 1) * (1 + dilation + dilation**2 + ...)`: choose
            `max_layers` accordingly.

    Returns:
        A categorical search space for each of `num_layers`, `window`, `num_heads`, `dim`,
        `lr_factor` and `token_size`, and for `dilation` if it is searched.

    Raises:
        TypeError: If a maximum is not an int.
        ValueError: If a maximum is too small, heads do not fit the smallest width, or there is no
            second layer to dilate.

    Example:
        >>> from ray import tune
        >>> from ray.rllib.algorithms.ppo import PPOConfig
        >>> from rllib_attention import attention_search_space, use_attention
        >>> space = attention_search_space(max_window=32)
        >>> space["window"].categories
        [8, 16, 32]
        >>> config = PPOConfig().environment("CartPole-v1")
        >>> config = config.training(lr=tune.loguniform(1e-4, 1e-3))
        >>> config = use_attention(config, **space)
        >>> tuner = tune.Tuner(config.algo_class, param_space=config)
    """
    given = {
        "max_layers": max_layers,
        "max_window": max_window,
        "max_heads": max_heads,
        "max_dim": max_dim,
        "max_dilation": max_dilation,
    }
    for name, value in given.items():
        _check_maximum(name, value)
    dims = _doubling(32, max_dim)
    if dims[0] % (2 * max_heads):
        raise ValueError(
            f"max_heads={max_heads} must leave heads of even size at the smallest width, "
            f"{dims[0]}. Use e.g. `attention_search_space(max_heads=4, max_dim=128)`."
        )
    is_dilated = max_dilation > 1
    if is_dilated and max_layers < 2:
        raise ValueError(
            f"max_dilation={max_dilation} needs a second layer, got max_layers={max_layers}. Use "
            f"e.g. `attention_search_space(max_layers=2, max_dilation={max_dilation})`."
        )
    space = {
        "num_layers": tune.choice(list(range(2 if is_dilated else 1, max_layers + 1))),
        "window": tune.choice(_doubling(8, max_window)),
        "num_heads": tune.choice(_doubling(1, max_heads)),
        "dim": tune.choice(dims),
        "lr_factor": tune.choice(list(_LR_FACTORS)),
        "token_size": tune.choice(list(_TOKEN_SIZES)),
    }
    return space | ({"dilation": tune.choice(_doubling(1, max_dilation))} if is_dilated else {})


def _check_maximum(name: str, value: Any) -> None:
    example = f"Use e.g. `attention_search_space({name}={max(8, _SMALLEST[name])})`."
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__}). {example}")
    if value < _SMALLEST[name]:
        raise ValueError(f"{name} must be at least {_SMALLEST[name]}, got {value}. {example}")


def _doubling(start: int, end: int) -> list[int]:
    """Returns `start`, twice `start`, and so on, and last of all `end`; never more than `end`."""
    values = [start << i for i in range(max(end // start, 1).bit_length()) if start << i < end]
    return [*values, int(end)]


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
        # Ray's quantized ranges (`tune.qrandint`) have their upper end in them.
        is_quantized = isinstance(space.get_sampler(), Quantized)
        return [space.lower, space.upper if is_quantized else space.upper - 1]
    if isinstance(space, Float) and math.isfinite(space.lower) and math.isfinite(space.upper):
        return [space.lower, space.upper]
    return [_one_of(space)]


def _one_of(space: Domain) -> Any:
    """Returns a value of a search space without known ends."""
    try:
        return space.sample()
    except Exception as error:  # whatever the user's function raises
        raise ValueError(
            f"Expected a search space that says by itself which values it has, got {space}, which "
            f"failed with {error!r} before the trial's other options are known. Use e.g. "
            "`use_attention(config, window=tune.choice([16, 64]))`."
        ) from error
