"""Every check of AttentionConfig's fields, by its exact message."""

import ast
import dataclasses
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from ray import tune

from rllib_attention import config, config_checks, rllib_keys
from rllib_attention.config import AttentionConfig
from rllib_attention.nn.positions import POSITIONS
from tests.test_public_api import WITHOUT_RAY

FIELDS = [field.name for field in dataclasses.fields(AttentionConfig)]
INT_FIELDS = {
    # name: (smallest allowed value, the value in the call that fixes it)
    "dim": (1, 64),
    "num_heads": (1, 4),
    "num_layers": (1, 2),
    "window": (1, 32),
    "dilation": (1, 1),
    "ffn_dim": (0, 128),
    "head_dim": (1, 16),
    "prev_actions": (0, 0),
    "prev_rewards": (0, 0),
    "max_seq_len": (1, 16),
}

# Wrong types


def type_message(name, expected, value, call):
    kind = type(value).__name__
    return re.escape(
        f"AttentionConfig.{name} must be {expected}, got {value!r} ({kind}). Fix: `{call}`."
    )


@pytest.mark.parametrize("value", ["8", 8.0, np.float32(8), True, np.True_, [8], None, np.ones(1)])
@pytest.mark.parametrize("name", INT_FIELDS)
def test_integer_fields_refuse_other_types(name, value):
    if name in ("head_dim", "max_seq_len") and value is None:
        return  # None is their default.
    call = f"use_attention(config, {name}={INT_FIELDS[name][1]})"
    with pytest.raises(TypeError, match=f"^{type_message(name, 'an int', value, call)}$"):
        AttentionConfig(**{name: value})


@pytest.mark.parametrize("value", ["0.5", True, np.False_, 1j, [0.5]])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("dropout", "use_attention(config, dropout=0.1)"),
        ("lr_factor", "use_attention(config, lr_factor=0.3)"),
        ("gate_bias", "use_attention(config, gate='gru', gate_bias=2.0)"),
    ],
)
def test_float_fields_refuse_other_types(name, call, value):
    with pytest.raises(TypeError, match=f"^{type_message(name, 'a float', value, call)}$"):
        AttentionConfig(**{name: value})


@pytest.mark.parametrize("value", [1, b"none", True, ["none"]])
@pytest.mark.parametrize(("name", "default"), [("position", "relative_bias"), ("gate", "residual")])
def test_string_fields_refuse_other_types(name, default, value):
    call = f"use_attention(config, {name}='{default}')"
    with pytest.raises(TypeError, match=f"^{type_message(name, 'a str', value, call)}$"):
        AttentionConfig(**{name: value})


@pytest.mark.parametrize("value", [0, 1, "yes", None, 1.0, np.int64(1)])
def test_check_finite_refuses_other_types(value):
    call = "use_attention(config, check_finite=True)"
    with pytest.raises(TypeError, match=f"^{type_message('check_finite', 'a bool', value, call)}$"):
        AttentionConfig(check_finite=value)


@pytest.mark.parametrize("space", [tune.grid_search([8, 16]), tune.choice([8, 16])])
@pytest.mark.parametrize("name", FIELDS)
def test_search_spaces_are_sent_to_use_attention(name, space):
    gate = "gate='gru', " if name == "gate_bias" else ""
    message = (
        f"AttentionConfig.{name} must be a plain value, got the search space {space!r}. "
        f"Fix: `use_attention(config, {gate}{name}=tune.grid_search([...]))`."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        AttentionConfig(**{name: space})


# Out of range


@pytest.mark.parametrize("name", INT_FIELDS)
def test_integer_fields_refuse_values_below_their_minimum(name):
    minimum, example = INT_FIELDS[name]
    message = (
        f"AttentionConfig.{name} must be at least {minimum}, got {minimum - 1}. "
        f"Fix: `use_attention(config, {name}={example})`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(**{name: minimum - 1})


@pytest.mark.parametrize("name", INT_FIELDS)
def test_integer_fields_accept_their_minimum(name):
    # One position-blind head, so that sizes of 1 are valid too.
    fields = {"num_heads": 1, "position": "none", name: INT_FIELDS[name][0]}
    assert getattr(AttentionConfig(**fields), name) == INT_FIELDS[name][0]


@pytest.mark.parametrize("value", [-0.1, 1.0, 2, float("nan"), float("inf")])
def test_dropout_range(value):
    message = (
        f"AttentionConfig.dropout must be at least 0 and below 1, got {float(value)!r}. "
        "Fix: `use_attention(config, dropout=0.1)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(dropout=value)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, float("nan")])
def test_lr_factor_range(value):
    message = (
        f"AttentionConfig.lr_factor must be above 0 and at most 1, got {value!r}. "
        "Fix: `use_attention(config, lr_factor=0.3)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(lr_factor=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("gate", ["gru", "residual"])
def test_gate_bias_must_be_finite(gate, value):
    message = (
        f"AttentionConfig.gate_bias must be finite, got {value!r}. "
        "Fix: `use_attention(config, gate='gru', gate_bias=2.0)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(gate=gate, gate_bias=value)


@pytest.mark.parametrize(
    ("name", "choices", "default"),
    [
        ("position", "'relative_bias', 'relative', 'recency', 'rotary', 'none'", "relative_bias"),
        ("gate", "'residual', 'gru'", "residual"),
    ],
)
@pytest.mark.parametrize("value", ["", "Rotary", "lstm"])
def test_choices(name, choices, default, value):
    message = (
        f"AttentionConfig.{name} must be one of {choices}, got {value!r}. "
        f"Fix: `use_attention(config, {name}='{default}')`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(**{name: value})


# Fields that contradict each other


@pytest.mark.parametrize(
    ("fields", "fixed_dim"),
    [
        ({"dim": 64, "num_heads": 3}, 66),
        ({"dim": 10, "num_heads": 4, "position": "none"}, 12),
        ({"dim": 10, "num_heads": 4}, 16),
        ({"dim": 2, "num_heads": 4}, 8),
    ],
)
def test_dim_must_split_into_heads(fields, fixed_dim):
    dim, heads = fields["dim"], fields["num_heads"]
    message = (
        "AttentionConfig.dim must be a multiple of num_heads while head_dim is None, "
        f"got dim={dim} and num_heads={heads}. Fix: "
        f"`use_attention(config, dim={fixed_dim}, num_heads={heads})`, or set head_dim."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(**fields)
    AttentionConfig(**fields | {"dim": fixed_dim})
    AttentionConfig(**fields, head_dim=6)


TURNS = [
    ("recency", "it turns pairs of numbers"),
    ("rotary", "it turns pairs of numbers"),
    (None, "on replayed windows it turns pairs of numbers"),
]
OTHER = {"recency": "", "rotary": "", None: " or `position='relative_bias'`"}


@pytest.mark.parametrize(("position", "reason"), TURNS)
def test_rotary_needs_an_even_head_size(position, reason):
    message = (
        f"AttentionConfig's head size dim // num_heads must be even with position={position!r} "
        f"({reason}), got 5 from dim=20 and num_heads=4. "
        f"Fix: `use_attention(config, dim=24, num_heads=4)`{OTHER[position]}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(dim=20, num_heads=4, position=position)
    AttentionConfig(dim=24, num_heads=4, position=position)
    AttentionConfig(dim=20, num_heads=4, position="relative_bias")
    AttentionConfig(dim=20, num_heads=4, position="none")


@pytest.mark.parametrize(("position", "reason"), TURNS)
def test_rotary_needs_an_even_head_dim(position, reason):
    message = (
        f"AttentionConfig.head_dim must be even with position={position!r} ({reason}), got 5. "
        f"Fix: `use_attention(config, head_dim=6)`{OTHER[position]}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(head_dim=5, position=position)
    AttentionConfig(head_dim=6, position=position)
    AttentionConfig(head_dim=5, position="relative_bias")
    AttentionConfig(head_dim=5, position="relative")


def test_gate_bias_needs_the_gate_that_reads_it():
    message = (
        "AttentionConfig.gate_bias is only read with gate='gru', got gate_bias=1.0 with "
        "gate='residual'. Fix: `use_attention(config, gate='gru', gate_bias=1.0)`, or leave "
        "gate_bias out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(gate_bias=1)
    AttentionConfig(gate_bias=2.0)
    AttentionConfig(gate="gru", gate_bias=1)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_token_size_range(value):
    message = (
        f"AttentionConfig.token_size must be finite and at least 0, got {value!r}. "
        "Fix: `use_attention(config, token_size=2.5)`."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        AttentionConfig(token_size=value)
    assert AttentionConfig(token_size=0).token_size == 0.0


def test_dilation_needs_a_layer_that_reads_it():
    message = (
        "AttentionConfig.dilation is only read with num_layers of at least 2 (the lowest layer "
        "looks at every step), got dilation=4 with num_layers=1. Fix: "
        "`use_attention(config, num_layers=2, dilation=4)`, or leave dilation out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(num_layers=1, dilation=4)
    AttentionConfig(num_layers=1, dilation=1)
    AttentionConfig(num_layers=2, dilation=4)


def test_types_are_checked_before_ranges_and_ranges_before_combinations():
    with pytest.raises(TypeError, match=re.escape("AttentionConfig.dropout must be a float")):
        AttentionConfig(dim=-1, dropout="high")
    with pytest.raises(ValueError, match=re.escape("AttentionConfig.dropout must be at least 0")):
        AttentionConfig(dim=63, dropout=-1.0)


def test_each_field_is_checked_and_choices_are_those_of_the_types():
    assert set(config_checks.MINIMUM) == set(INT_FIELDS)
    for name in FIELDS:
        with pytest.raises(TypeError, match=f"AttentionConfig.{name} must be a"):
            AttentionConfig(**{name: object()})
    assert config_checks.CHOICES["position"] == config.Position.__args__
    assert config_checks.CHOICES["gate"] == config.Gate.__args__


@pytest.mark.parametrize("module", [config, config_checks, rllib_keys])
def test_the_config_imports_neither_ray_nor_torch_nor_numpy(module):
    script = (
        WITHOUT_RAY
        + f"import {module.__name__}\n"
        + "heavy = {'ray', 'torch', 'numpy', 'gymnasium'} & set(sys.modules)\n"
        + "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            root = name.partition(".")[0]
            assert root == "rllib_attention" or root in sys.stdlib_module_names


def test_positions_are_those_that_can_be_built():
    assert config_checks.CHOICES["position"] == POSITIONS == get_args(config.Position)
