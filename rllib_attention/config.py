"""The options of an attention model, validated in one place.

This module imports neither Ray nor torch, so that a config can be built, checked, and read
anywhere: in a launcher script, in a worker, in a notebook that only looks at results.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from rllib_attention import rllib_keys
from rllib_attention.config_checks import (
    DEFAULT_GATE_BIAS,
    check_combinations,
    check_ranges,
    converted,
    field_names,
    reject_unknown,
    require_mapping,
    require_minimum,
    to_int,
)

# What versions did that had not yet heard of an option.
_BEFORE = {"token_size": 0.0, "start_embedding": False}
Position = Literal["relative_bias", "relative", "recency", "rotary", "none"]
Gate = Literal["residual", "gru"]


@dataclass(frozen=True, kw_only=True)
class PathOptions:
    """Options of `AttentionConfig`, of the same names, whose defaults depend on the data path."""

    position: Position
    token_size: float
    start_embedding: bool
    dropout: float
    lr_factor: float


_ON_CHUNKS = PathOptions(
    position="relative_bias", token_size=1.0, start_embedding=True, dropout=0.05, lr_factor=0.1
)
_ON_WINDOWS = PathOptions(
    position="recency", token_size=0.0, start_embedding=False, dropout=0.0, lr_factor=1.0
)

# Steps of a training chunk where nothing says how many.
DEFAULT_CHUNK = 64

_Class = TypeVar("_Class", bound=type)


def _names_unknown_fields(cls: _Class) -> _Class:
    """Let a dataclass refuse unknown arguments with the closest field, before Python does."""
    init = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def checked_init(self: Any, *args: Any, **fields: Any) -> None:
        reject_unknown("field", fields, field_names(self))
        init(self, *args, **fields)

    cls.__init__ = checked_init  # type: ignore[misc]
    return cls


@_names_unknown_fields
@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The shape of an attention model and how it is trained.

    Instances are immutable, hashable, and valid: a wrong type, a value out of range, or fields
    that contradict each other raise at construction, with the call that fixes it. NumPy
    integers and floats are converted to Python's, so that sampled values can be passed as
    they are.

    Attributes:
        dim: Width of the model: the size of each time step's vector between blocks.
        num_heads: Attention heads per layer.
        num_layers: Number of blocks (attention and feed-forward) on top of each other.
        window: Time steps that each layer attends to, the current one included. A window of 1
            sees no past: a control without memory.
        dilation: How far apart the steps are that each layer attends to, compared with the layer
            below. The lowest one looks at every step; with `dilation=d` the next one looks at
            every d-th step, then every d²-th. So `window=32, dilation=32` sees 1,023 steps with 2
            layers, and `window=22, dilation=22` 10,647 with 3, while each step still attends to
            `window` others per layer. It costs memory in rollouts (`dilation ** l * window` steps
            of keys and values in layer l), context in training (`max_seq_len` should be no shorter
            than it), and detail: of the distant past, a layer sees every d-th step only, as the
            layers below sum it up. A fixed lag beyond the lowest window is seen sharply only if it
            is a sum of the layers' lags; with a `dilation` above `window` some steps are not seen
            at all. 1 means a plain window in every layer.
        ffn_dim: Hidden width of each block's feed-forward part. 0 leaves that part out.
        head_dim: Width of one attention head. None means `dim // num_heads`.
        position: How attention knows the distance between two steps: `"relative_bias"` adds a
            learned score of the distance, the same for every query, `"relative"` all of
            Transformer-XL's terms, in which each query scores distances anew, `"rotary"` turns
            queries and keys, `"recency"` does so too and lets scores fall with the distance in all
            heads but the last, `"none"` is blind to it. None means `"relative_bias"` where policies
            train on chunks: turned queries do not find a cue among noise, and `"relative"` costs
            more. Where Q-networks train on replayed windows None means `"recency"`, beside which no
            other was compared.
        gate: How a block's output joins its input: `"residual"` adds it (O = H + C), `"gru"`
            uses GTrXL's gate.
        gate_bias: Initial bias of the GRU gate; the larger, the closer a fresh block is to the
            identity. Only read with `gate="gru"`.
        token_size: Of the numbers of a step's vector, which is normed before the first block, at
            the start of training; feed-forwards then start at a tenth of their size. So heads begin
            with the present as well as with the past, whatever the scale of observations. Fresh
            attention adds numbers of about 0.5. None means 1 where policies train on chunks; with
            0.4 a cue a hundred steps back is found sooner, 2.5 is better where the present nearly
            solves a task. 0 leaves the norm out, and is the default where Q-networks train on
            replayed windows: SAC learned later with it.
        start_embedding: Whether each layer adds a learned vector, times the share of its window
            that lies before the episode, and turns a learned part of what it reads from a mean over
            the steps that there are into a sum. A mean is the same for 3 steps as for 30 of the
            same kind; with this an agent can tell them apart, and count. None is as for
            `token_size`: on where policies train on chunks.
        dropout: Probability with which, in training, a number is dropped that attention or
            feed-forward add to a step. None means 0.05 where policies train on chunks (PPO, APPO,
            IMPALA, BC, MARWIL), which keeps them from memorising their batch, and 0 where
            Q-networks train on replayed windows, for which it was not tried. Training then sees
            another policy than the one that acted: PPO's KL penalty is told what of their
            divergence is dropout's (`kl_of_dropout`); APPO's is not, so leave `use_kl_loss` off.
        lr_factor: Learning rate of what the blocks write to a step (values, output maps,
            feed-forward) as a share of the module's. Queries and keys, tokenizer and heads have the
            full one. None means 0.1 where policies train on chunks, since blocks that learn faster
            memorise the noise of their batch, and 1 where Q-networks train on replayed windows. Not
            read on the old API stack, nor by an optimizer that has parameter groups of its own.
        prev_actions: How many past actions join each step's input.
        prev_rewards: How many past rewards join each step's input.
        max_seq_len: Time steps per training chunk. None lets `use_attention` choose: a fragment in
            APPO and IMPALA, else an eighth of a minibatch, or as long as the context if that is
            more and two fit into a minibatch. Fragments are cut into equal parts.
        check_finite: Whether observations or gradients that are not finite raise an error, with
            the module's name and where they came first. If not, RLlib warns of gradients and puts
            zeros, or the largest numbers, in their place.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: An argument is no field (with the closest one, or our name for a key of
            RLlib's); a field is out of its range; `dim` is no multiple of `num_heads` while
            `head_dim` is None; the head size is odd with rotary positions or with `position=None`;
            `dilation` is above 1 with a single layer; or `gate_bias` is set without the gate that
            reads it.

    Example:
        >>> from rllib_attention import AttentionConfig
        >>> config = AttentionConfig(num_layers=2, window=32)
        >>> config.receptive_field
        63
        >>> config.replace(window=64).context_len
        126
        >>> config.replace(dilation=32).context_len
        1023
    """

    dim: int = 64
    num_heads: int = 4
    num_layers: int = 2
    window: int = 32
    dilation: int = 1
    ffn_dim: int = 128
    head_dim: int | None = None
    position: Position | None = None
    gate: Gate = "residual"
    gate_bias: float = DEFAULT_GATE_BIAS
    token_size: float | None = None
    start_embedding: bool | None = None
    dropout: float | None = None
    lr_factor: float | None = None
    prev_actions: int = 0
    prev_rewards: int = 0
    max_seq_len: int | None = None
    check_finite: bool = True

    def __post_init__(self) -> None:
        """Check types, then ranges, then what the fields say together."""
        for name, value in converted(self).items():
            # The dataclass is frozen for its users; construction itself has to write.
            object.__setattr__(self, name, value)
        check_ranges(self)
        check_combinations(self)

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def receptive_field(self) -> int:
        """Time steps that the output at one step depends on, that step included."""
        return self.context_len + 1

    @property
    def context_len(self) -> int:
        """Past time steps that the output at one step depends on."""
        return (self.window - 1) * sum(self.dilation**layer for layer in range(self.num_layers))

    @property
    def history_len(self) -> int:
        """Past time steps of raw data needed at one step.

        The oldest step of the context has previous actions and rewards of its own, hence up to
        `max(prev_actions, prev_rewards)` more than `context_len`.
        """
        return self.context_len + max(self.prev_actions, self.prev_rewards)

    def for_path(self, *, windowed: bool) -> PathOptions:
        """Return the options whose defaults depend on the data path, those left out filled in.

        Args:
            windowed: Whether training observations are replayed windows, not chunks.
        """
        defaults = _ON_WINDOWS if windowed else _ON_CHUNKS
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(defaults)}
        given = {name: value for name, value in own.items() if value is not None}
        return dataclasses.replace(defaults, **given)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values, the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> AttentionConfig:
        """Build a config from a dict of its fields; those left out take their defaults.

        A dict of all fields that an older version had, from a checkpoint, keeps what that version
        computed: without a norm of tokens and a start embedding.

        Args:
            fields: Field names and values, as `to_dict` returns them.

        Returns:
            The validated config.

        Raises:
            TypeError: `fields` is not a mapping, or a value has the wrong type.
            ValueError: A key is not a field, or a value is out of its range.
        """
        require_mapping("AttentionConfig.from_dict(fields)", fields)
        reject_unknown("field", fields, field_names(cls))
        is_whole = set(field_names(cls)) - set(_BEFORE) <= set(fields)
        return cls(**{**(_BEFORE if is_whole else {}), **fields})

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

        Keys left out take RLlib's defaults; gates, positions, no dropout, and one learning rate for
        all are GTrXL's. RLlib's memory of M past rows becomes `window = M + 1`, since a window
        includes the current step. `attention_memory_training` is accepted and ignored, as RLlib
        ignores it. Keys that have nothing to do with attention (`fcnet_hiddens`, …) are left alone.

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
        require_mapping("AttentionConfig.from_rllib(model_dict)", model_dict)
        _check_rllib_keys(model_dict)
        fields = {
            name: model_dict.get(key, default) for key, (name, default) in rllib_keys.FIELDS.items()
        }
        fields |= {"window": _rllib_window(model_dict), "gate": "gru", "position": "relative"}
        fields |= {"token_size": 0.0, "start_embedding": False, "dropout": 0.0, "lr_factor": 1.0}
        return cls.from_dict(fields | overrides)


def _check_rllib_keys(model_dict: Mapping[str, Any]) -> None:
    if model_dict.get("use_lstm"):
        raise ValueError(
            "AttentionConfig.from_rllib reads an attention model, got use_lstm=True. Fix: "
            "`AttentionConfig.from_rllib({**model_dict, 'use_lstm': False})`."
        )
    attention_keys = (key for key in model_dict if str(key).startswith("attention_"))
    reject_unknown("RLlib key", attention_keys, rllib_keys.KNOWN)


def _rllib_window(model_dict: Mapping[str, Any]) -> int:
    """Turn RLlib's number of past rows into our window, which includes the current step."""
    key, default = rllib_keys.MEMORY, rllib_keys.MEMORY_DEFAULT
    where = f"AttentionConfig.from_rllib's {key}"
    call = f"AttentionConfig.from_rllib({{'{key}': {default}}})"
    memory = to_int(where, model_dict.get(key, default), call)
    require_minimum(where, memory, 0, call)
    return memory + 1
