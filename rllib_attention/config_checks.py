"""Checks of `AttentionConfig`'s fields: types first, then ranges, then what they say together.

Pure Python: imports neither Ray nor torch nor NumPy.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rllib_attention.rllib_keys import hint_for

# An `AttentionConfig`, or its class: that file stands on this one.
Config = Any

# The smallest allowed value of each integer field.
MINIMUM = {
    "dim": 1,
    "num_heads": 1,
    "num_layers": 1,
    "window": 1,
    "dilation": 1,
    "ffn_dim": 0,
    "head_dim": 1,
    "prev_actions": 0,
    "prev_rewards": 0,
    "max_seq_len": 1,
}
CHOICES = {
    "position": ("relative_bias", "relative", "recency", "rotary", "none"),
    "gate": ("residual", "gru"),
}
# Schemes that turn pairs of numbers.
_ROTARY = ("recency", "rotary")
DEFAULT_GATE_BIAS = 2.0

_FLOATS = ("token_size", "gate_bias", "dropout", "lr_factor")
_BOOLS = ("start_embedding", "check_finite")
# What an error proposes for fields whose default is None.
_EXAMPLES = {
    "position": "relative_bias",
    "dropout": 0.1,
    "lr_factor": 0.3,
    "token_size": 2.5,
    "start_embedding": True,
}
_EXAMPLE = 16


def field_names(config: Config) -> list[str]:
    """Return the names of the fields, in order."""
    return [field.name for field in dataclasses.fields(config)]


def converted(config: Config) -> dict[str, Any]:
    """Return each field as a plain Python value.

    Raises:
        TypeError: A field has the wrong type, or is a search space.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in defaults:
        _reject_search_space(name, getattr(config, name))
    return {
        name: None
        if default is None and getattr(config, name) is None
        else _converter(name)(f"AttentionConfig.{name}", getattr(config, name), fix(name, default))
        for name, default in defaults.items()
    }


def check_ranges(config: Config) -> None:
    """Check each field by itself.

    Raises:
        ValueError: A field is out of its range.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name, minimum in MINIMUM.items():
        value = getattr(config, name)
        if value is not None:
            require_minimum(f"AttentionConfig.{name}", value, minimum, fix(name, defaults[name]))
    for name, choices in CHOICES.items():
        expected = "one of " + ", ".join(map(repr, choices))
        chosen = getattr(config, name)
        _require(chosen is None or chosen in choices, config, name, expected)
    size = 0.0 if config.token_size is None else config.token_size
    _require(0.0 <= size < math.inf, config, "token_size", "finite and at least 0")
    dropout = 0.0 if config.dropout is None else config.dropout
    _require(0.0 <= dropout < 1.0, config, "dropout", "at least 0 and below 1")
    factor = 1.0 if config.lr_factor is None else config.lr_factor
    _require(0.0 < factor <= 1.0, config, "lr_factor", "above 0 and at most 1")
    _require(math.isfinite(config.gate_bias), config, "gate_bias", "finite")


def check_combinations(config: Config) -> None:
    """Check what the fields say together.

    Raises:
        ValueError: Fields contradict each other.
    """
    if config.head_dim is None and config.dim % config.num_heads:
        raise ValueError(
            "AttentionConfig.dim must be a multiple of num_heads while head_dim is None, got "
            f"dim={config.dim} and num_heads={config.num_heads}. Fix: "
            f"`use_attention(config, dim={_next_dim(config)}, num_heads={config.num_heads})`, "
            "or set head_dim."
        )
    if _may_turn(config) and config.head_size % 2:
        raise ValueError(_odd_head_message(config))
    if config.num_layers == 1 and config.dilation > 1:
        raise ValueError(
            "AttentionConfig.dilation is only read with num_layers of at least 2 (the lowest layer "
            f"looks at every step), got dilation={config.dilation} with num_layers=1. Fix: "
            f"`use_attention(config, num_layers=2, dilation={config.dilation})`, or leave dilation "
            "out."
        )
    if config.gate == "residual" and config.gate_bias != DEFAULT_GATE_BIAS:
        raise ValueError(
            "AttentionConfig.gate_bias is only read with gate='gru', got gate_bias="
            f"{config.gate_bias} with gate='residual'. Fix: `use_attention(config, "
            f"gate='gru', gate_bias={config.gate_bias})`, or leave gate_bias out."
        )


def reject_unknown(kind: str, keys: Iterable[Any], known: list[str]) -> None:
    """Refuse keys that are not known, with the closest known one or RLlib's meaning of it.

    Args:
        kind: What errors call a key.
        keys: What was given.
        known: What there is.

    Raises:
        ValueError: A key is not known.
    """
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"AttentionConfig has no {kind} {key!r}.{hint_for(key) or hint} Known {kind}s: "
                f"{', '.join(known)}."
            )


def require_mapping(where: str, value: Any) -> None:
    """Refuse what is no dict.

    Raises:
        TypeError: `value` is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} must be a dict, got {value!r} ({type(value).__name__}).")


def require_minimum(where: str, value: int, minimum: int, call: str) -> None:
    """Refuse a number that is too small.

    Raises:
        ValueError: `value` is below `minimum`.
    """
    if value < minimum:
        raise ValueError(f"{where} must be at least {minimum}, got {value}. Fix: `{call}`.")


def to_int(where: str, value: Any, call: str) -> int:
    """Return a Python int for any integer, NumPy's included.

    Raises:
        TypeError: `value` is not an integer.
    """
    # `bool` is an `Integral`, yet `dim=True` is a slip and not a width of 1.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise _wrong_type(where, "an int", value, call)
    return int(value)


def fix(name: str, value: Any) -> str:
    """Return the call that sets a field to a valid value."""
    gate = "gate='gru', " if name == "gate_bias" else ""
    example = _EXAMPLES.get(name, _EXAMPLE) if value is None else value
    return f"use_attention(config, {gate}{name}={example!r})"


def _converter(name: str) -> Callable[[str, Any, str], Any]:
    if name in MINIMUM:
        return to_int
    if name in _FLOATS:
        return _to_float
    return _to_bool if name in _BOOLS else _to_str


def _to_float(where: str, value: Any, call: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _wrong_type(where, "a float", value, call)
    return float(value)


def _to_str(where: str, value: Any, call: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(where, "a str", value, call)
    return str(value)


def _to_bool(where: str, value: Any, call: str) -> bool:
    # NumPy's bool is no subclass of Python's, and this module does not import NumPy; the class
    # is called `bool_` before NumPy 2.
    kind = type(value)
    is_numpy_bool = kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_")
    if not (isinstance(value, bool) or is_numpy_bool):
        raise _wrong_type(where, "a bool", value, call)
    return bool(value)


def _wrong_type(where: str, expected: str, value: Any, call: str) -> TypeError:
    kind = type(value).__name__
    return TypeError(f"{where} must be {expected}, got {value!r} ({kind}). Fix: `{call}`.")


def _reject_search_space(name: str, value: Any) -> None:
    is_grid = isinstance(value, Mapping) and "grid_search" in value
    if is_grid or type(value).__module__.startswith("ray.tune"):
        gate = "gate='gru', " if name == "gate_bias" else ""
        raise TypeError(
            f"AttentionConfig.{name} must be a plain value, got the search space {value!r}. Fix: "
            f"`use_attention(config, {gate}{name}=tune.grid_search([...]))`."
        )


def _require(is_met: bool, config: Config, name: str, expected: str) -> None:
    if not is_met:
        default = type(config).__dataclass_fields__[name].default
        raise ValueError(
            f"AttentionConfig.{name} must be {expected}, got {getattr(config, name)!r}. Fix: "
            f"`{fix(name, default)}`."
        )


def _odd_head_message(config: Config) -> str:
    where = "on replayed windows " if config.position is None else ""
    rule = f"must be even with position={config.position!r} ({where}it turns pairs of numbers), got"
    other = " or `position='relative_bias'`" if config.position is None else ""
    if config.head_dim is not None:
        return (
            f"AttentionConfig.head_dim {rule} {config.head_dim}. Fix: "
            f"`use_attention(config, head_dim={config.head_dim + 1})`{other}."
        )
    return (
        f"AttentionConfig's head size dim // num_heads {rule} {config.head_size} from "
        f"dim={config.dim} and num_heads={config.num_heads}. Fix: "
        f"`use_attention(config, dim={_next_dim(config)}, num_heads={config.num_heads})`{other}."
    )


def _may_turn(config: Config) -> bool:
    """Say whether positions turn pairs of numbers, if only on replayed windows, by default."""
    return config.position is None or config.position in _ROTARY


def _next_dim(config: Config) -> int:
    """Return the smallest `dim` above this one that splits into valid heads."""
    step = config.num_heads * (2 if _may_turn(config) else 1)
    return (config.dim // step + 1) * step
