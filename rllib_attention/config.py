"""The options of an attention model, validated in one place.

This module imports neither Ray nor torch, so that a config can be built, checked, and read
anywhere: in a launcher script, in a worker, in a notebook that only looks at results.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Position = Literal["recency", "rotary", "relative", "none"]
_ROTARY = ("recency", "rotary")
Gate = Literal["residual", "gru"]

# Steps of a training chunk where nothing says how many.
DEFAULT_CHUNK = 64

# The smallest allowed value of each integer field.
_MINIMUM = {
    "dim": 1,
    "num_heads": 1,
    "num_layers": 1,
    "window": 1,
    "ffn_dim": 0,
    "head_dim": 1,
    "prev_actions": 0,
    "prev_rewards": 0,
    "max_seq_len": 1,
}
_OPTIONAL = ("head_dim", "max_seq_len")
_CHOICES = {"position": get_args(Position), "gate": get_args(Gate)}
_DEFAULT_GATE_BIAS = 2.0

# RLlib's old model keys, our names for them, and RLlib's defaults (`MODEL_DEFAULTS` in
# `ray/rllib/models/catalog.py`), copied because this module must not import Ray.
_RLLIB_FIELDS: dict[str, tuple[str, Any]] = {
    "attention_num_transformer_units": ("num_layers", 1),
    "attention_dim": ("dim", 64),
    "attention_num_heads": ("num_heads", 1),
    "attention_head_dim": ("head_dim", 32),
    "attention_position_wise_mlp_dim": ("ffn_dim", 32),
    "attention_init_gru_gate_bias": ("gate_bias", 2.0),
    "attention_use_n_prev_actions": ("prev_actions", 0),
    "attention_use_n_prev_rewards": ("prev_rewards", 0),
    "max_seq_len": ("max_seq_len", 20),
}
_RLLIB_MEMORY = "attention_memory_inference"
_RLLIB_MEMORY_DEFAULT = 50
# RLlib stores this key and reads it nowhere.
_RLLIB_IGNORED = "attention_memory_training"


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The shape of an attention model and how it is trained.

    Instances are immutable, hashable, and valid: a wrong type, a value out of range, or fields
    that contradict each other raise at construction, with the call that mends it. NumPy
    integers and floats are converted to Python's, so that sampled values can be passed as
    they are.

    Attributes:
        dim: Width of the model: the size of each time step's vector between blocks.
        num_heads: Attention heads per layer.
        num_layers: Number of blocks (attention and feed-forward) on top of each other.
        window: Time steps that each layer attends to, the current one included. A window of 1
            sees no past: a control without memory.
        ffn_dim: Hidden width of each block's feed-forward part. 0 leaves that part out.
        head_dim: Width of one attention head. None means `dim // num_heads`.
        position: How attention knows the distance between two steps: `"rotary"` turns queries
            and keys, `"recency"` does so too and lets scores fall with the distance in all heads
            but the last, `"relative"` adds Transformer-XL's learned terms, `"none"` is blind to it.
        gate: How a block's output joins its input: `"residual"` adds it (O = H + C), `"gru"`
            uses GTrXL's gate.
        gate_bias: Initial bias of the GRU gate; the larger, the closer a fresh block is to the
            identity. Only read with `gate="gru"`.
        dropout: Probability with which an attention weight is dropped in training.
        prev_actions: How many past actions join each step's input.
        prev_rewards: How many past rewards join each step's input.
        max_seq_len: Time steps per training chunk. None lets `use_attention` choose: a fragment in
            APPO and IMPALA, else twice the context as long as two chunks fit into a minibatch.
        check_finite: Whether observations that are not finite raise an error instead of
            turning the weights to NaN.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of its range; `dim` is no multiple of `num_heads` while
            `head_dim` is None; the head size is odd with rotary positions; or `gate_bias` is
            set without the gate that reads it.

    Example:
        >>> from rllib_attention import AttentionConfig
        >>> config = AttentionConfig(num_layers=2, window=32)
        >>> config.receptive_field
        63
        >>> config.replace(window=64).context_len
        126
    """

    dim: int = 64
    num_heads: int = 4
    num_layers: int = 2
    window: int = 32
    ffn_dim: int = 128
    head_dim: int | None = None
    position: Position = "rotary"
    gate: Gate = "residual"
    gate_bias: float = _DEFAULT_GATE_BIAS
    dropout: float = 0.0
    prev_actions: int = 0
    prev_rewards: int = 0
    max_seq_len: int | None = None
    check_finite: bool = True

    def __post_init__(self) -> None:
        """Check types, then ranges, then what the fields say together."""
        self._convert_types()
        self._check_ranges()
        self._check_combinations()

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def receptive_field(self) -> int:
        """Time steps that the output at one step depends on, that step included."""
        return self.num_layers * (self.window - 1) + 1

    @property
    def context_len(self) -> int:
        """Past time steps that the output at one step depends on."""
        return self.receptive_field - 1

    @property
    def history_len(self) -> int:
        """Past time steps of raw data needed at one step.

        The oldest step of the context has previous actions and rewards of its own, hence up to
        `max(prev_actions, prev_rewards)` more than `context_len`.
        """
        return self.context_len + max(self.prev_actions, self.prev_rewards)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values, the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> AttentionConfig:
        """Build a config from a dict of its fields; those left out take their defaults.

        Args:
            fields: Field names and values, as `to_dict` returns them.

        Returns:
            The validated config.

        Raises:
            TypeError: `fields` is not a mapping, or a value has the wrong type.
            ValueError: A key is not a field, or a value is out of its range.
        """
        _require_mapping("AttentionConfig.from_dict(fields)", fields)
        _reject_unknown("field", fields, _field_names())
        return cls(**fields)

    def replace(self, **overrides: Any) -> AttentionConfig:
        """Return a copy with some fields changed, validated anew.

        Args:
            **overrides: Field names and their new values.

        Returns:
            The changed config; this one stays as it is.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A key is not a field, or a value is out of its range.
        """
        _reject_unknown("field", overrides, _field_names())
        return dataclasses.replace(self, **overrides)

    @classmethod
    def gtrxl(cls, **overrides: Any) -> AttentionConfig:
        """Return the block of GTrXL: GRU gates, relative positions, RLlib's default sizes.

        See "Stabilizing Transformers for Reinforcement Learning", https://arxiv.org/abs/1910.06764.

        Args:
            **overrides: Fields to change, e.g. `num_layers=4`.

        Returns:
            The validated config.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A key is not a field, or a value is out of its range.

        Example:
            >>> from rllib_attention import AttentionConfig
            >>> AttentionConfig.gtrxl(num_layers=4).receptive_field
            201
        """
        return cls.from_rllib({}, **overrides)

    @classmethod
    def from_rllib(cls, model_dict: Mapping[str, Any], **overrides: Any) -> AttentionConfig:
        """Read the old `use_attention` keys of an RLlib model dict.

        Keys left out take RLlib's defaults, gates and positions are GTrXL's. RLlib's memory of
        M past rows becomes `window = M + 1`, since a window includes the current step.
        `attention_memory_training` is accepted and ignored, as RLlib ignores it. Keys that have
        nothing to do with attention (`fcnet_hiddens`, …) are left alone.

        Args:
            model_dict: RLlib's model dict, e.g. `{"use_attention": True, "attention_dim": 32}`.
            **overrides: Fields of this class to set on top, e.g. `position="rotary"`.

        Returns:
            The validated config.

        Raises:
            TypeError: `model_dict` is not a mapping, or a value has the wrong type.
            ValueError: An `attention_*` key or an override is unknown, `use_lstm` is set, or a
                value is out of its range.

        Example:
            >>> from rllib_attention import AttentionConfig
            >>> AttentionConfig.from_rllib({"attention_memory_inference": 15}).window
            16
        """
        _require_mapping("AttentionConfig.from_rllib(model_dict)", model_dict)
        _check_rllib_keys(model_dict)
        fields = {
            name: model_dict.get(key, default) for key, (name, default) in _RLLIB_FIELDS.items()
        }
        fields |= {"window": _rllib_window(model_dict), "gate": "gru", "position": "relative"}
        return cls.from_dict(fields | overrides)

    def _convert_types(self) -> None:
        for name in _field_names():
            _reject_search_space(name, getattr(self, name))
        for name in _MINIMUM:
            if name not in _OPTIONAL or getattr(self, name) is not None:
                self._convert(name, _to_int(_qualified(name), getattr(self, name), _mend(name)))
        for name in ("gate_bias", "dropout"):
            self._convert(name, _to_float(name, getattr(self, name)))
        for name in _CHOICES:
            self._convert(name, _to_str(name, getattr(self, name)))
        self._convert("check_finite", _to_bool("check_finite", self.check_finite))

    def _convert(self, name: str, value: Any) -> None:
        # The dataclass is frozen for its users; construction itself has to write.
        object.__setattr__(self, name, value)

    def _check_ranges(self) -> None:
        for name, minimum in _MINIMUM.items():
            value = getattr(self, name)
            if value is not None:
                _require_minimum(_qualified(name), value, minimum, _mend(name))
        for name, choices in _CHOICES.items():
            _require_choice(name, getattr(self, name), choices)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(_wrong("dropout", "at least 0 and below 1", self.dropout))
        if not math.isfinite(self.gate_bias):
            raise ValueError(_wrong("gate_bias", "finite", self.gate_bias))

    def _check_combinations(self) -> None:
        if self.head_dim is None and self.dim % self.num_heads:
            raise ValueError(
                "AttentionConfig.dim must be a multiple of num_heads while head_dim is None, got "
                f"dim={self.dim} and num_heads={self.num_heads}. Mend it with "
                f"`use_attention(config, dim={self._next_dim()}, num_heads={self.num_heads})` "
                "or by setting head_dim."
            )
        if self.position in _ROTARY and self.head_size % 2:
            raise ValueError(self._odd_head_message())
        if self.gate == "residual" and self.gate_bias != _DEFAULT_GATE_BIAS:
            raise ValueError(
                "AttentionConfig.gate_bias is only read with gate='gru', got gate_bias="
                f"{self.gate_bias} with gate='residual'. Mend it with `use_attention(config, "
                f"gate='gru', gate_bias={self.gate_bias})` or by leaving gate_bias out."
            )

    def _odd_head_message(self) -> str:
        rule = f"must be even with position={self.position!r} (it turns pairs of numbers), got"
        if self.head_dim is not None:
            return (
                f"AttentionConfig.head_dim {rule} {self.head_dim}. Mend it with "
                f"`use_attention(config, head_dim={self.head_dim + 1})`."
            )
        return (
            f"AttentionConfig's head size dim // num_heads {rule} {self.head_size} from "
            f"dim={self.dim} and num_heads={self.num_heads}. Mend it with "
            f"`use_attention(config, dim={self._next_dim()}, num_heads={self.num_heads})`."
        )

    def _next_dim(self) -> int:
        """Return the smallest `dim` above this one that splits into valid heads."""
        step = self.num_heads * (2 if self.position in _ROTARY else 1)
        return (self.dim // step + 1) * step


def _field_names() -> list[str]:
    return [field.name for field in dataclasses.fields(AttentionConfig)]


def _qualified(name: str) -> str:
    return f"AttentionConfig.{name}"


def _mend(name: str, example: str = "") -> str:
    """Return the call that sets a field to a valid value."""
    default = getattr(AttentionConfig, name)
    example = example or repr(16 if default is None else default)
    gate = "gate='gru', " if name == "gate_bias" else ""
    return f"use_attention(config, {gate}{name}={example})"


def _wrong(name: str, expected: str, value: Any) -> str:
    where = _qualified(name)
    return f"{where} must be {expected}, got {value!r}. Mend it with `{_mend(name)}`."


def _wrong_type(where: str, expected: str, value: Any, mend: str) -> TypeError:
    kind = type(value).__name__
    return TypeError(f"{where} must be {expected}, got {value!r} ({kind}). Mend it with `{mend}`.")


def _reject_search_space(name: str, value: Any) -> None:
    is_grid = isinstance(value, Mapping) and "grid_search" in value
    if is_grid or type(value).__module__.startswith("ray.tune"):
        raise TypeError(
            f"{_qualified(name)} must be a plain value, got the search space {value!r}. Mend it "
            f"with `{_mend(name, 'tune.grid_search([...])')}`."
        )


def _to_int(where: str, value: Any, mend: str) -> int:
    # `bool` is an `Integral`, yet `dim=True` is a slip and not a width of 1.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise _wrong_type(where, "an int", value, mend)
    return int(value)


def _to_float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _wrong_type(_qualified(name), "a float", value, _mend(name))
    return float(value)


def _to_str(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(_qualified(name), "a str", value, _mend(name))
    return str(value)


def _to_bool(name: str, value: Any) -> bool:
    # NumPy's bool is no subclass of Python's, and this module does not import NumPy; the class
    # is called `bool_` before NumPy 2.
    kind = type(value)
    is_numpy_bool = kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_")
    if not (isinstance(value, bool) or is_numpy_bool):
        raise _wrong_type(_qualified(name), "a bool", value, _mend(name))
    return bool(value)


def _require_minimum(where: str, value: int, minimum: int, mend: str) -> None:
    if value < minimum:
        raise ValueError(f"{where} must be at least {minimum}, got {value}. Mend it with `{mend}`.")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        expected = "one of " + ", ".join(repr(choice) for choice in choices)
        raise ValueError(_wrong(name, expected, value))


def _require_mapping(where: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} must be a dict, got {value!r} ({type(value).__name__}).")


def _reject_unknown(kind: str, keys: Iterable[Any], known: list[str]) -> None:
    """Raise for the first key that is not known, with the closest known one."""
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"AttentionConfig has no {kind} {key!r}.{hint} Known {kind}s: {', '.join(known)}."
            )


def _check_rllib_keys(model_dict: Mapping[str, Any]) -> None:
    if model_dict.get("use_lstm"):
        raise ValueError(
            "AttentionConfig.from_rllib reads an attention model, got use_lstm=True. Mend it with "
            "`AttentionConfig.from_rllib({**model_dict, 'use_lstm': False})`."
        )
    known = [key for key in _RLLIB_FIELDS if key.startswith("attention_")]
    known += [_RLLIB_MEMORY, _RLLIB_IGNORED]
    attention_keys = (key for key in model_dict if str(key).startswith("attention_"))
    _reject_unknown("RLlib key", attention_keys, known)


def _rllib_window(model_dict: Mapping[str, Any]) -> int:
    """Turn RLlib's number of past rows into our window, which includes the current step."""
    where = f"AttentionConfig.from_rllib's {_RLLIB_MEMORY}"
    mend = f"AttentionConfig.from_rllib({{'{_RLLIB_MEMORY}': {_RLLIB_MEMORY_DEFAULT}}})"
    memory = model_dict.get(_RLLIB_MEMORY, _RLLIB_MEMORY_DEFAULT)
    memory = _to_int(where, memory, mend)
    _require_minimum(where, memory, 0, mend)
    return memory + 1
