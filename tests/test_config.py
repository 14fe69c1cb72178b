"""AttentionConfig: every field, every error message, every way in and out."""

import copy
import dataclasses
import inspect
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ray import tune
from ray.rllib.models.catalog import MODEL_DEFAULTS

from rllib_attention import config as config_module
from rllib_attention.config import AttentionConfig

FIELDS = [field.name for field in dataclasses.fields(AttentionConfig)]
INT_FIELDS = {
    # name: (smallest allowed value, the value in the call that mends it)
    "dim": (1, 64),
    "num_heads": (1, 4),
    "num_layers": (1, 2),
    "window": (1, 32),
    "ffn_dim": (0, 128),
    "head_dim": (1, 16),
    "prev_actions": (0, 0),
    "prev_rewards": (0, 0),
    "max_seq_len": (1, 16),
}
# A valid value other than the default for each field.
CHANGED = {
    "dim": 32,
    "num_heads": 2,
    "num_layers": 3,
    "window": 5,
    "ffn_dim": 0,
    "head_dim": 10,
    "position": "none",
    "gate": "gru",
    "gate_bias": 1.5,
    "dropout": 0.25,
    "prev_actions": 2,
    "prev_rewards": 3,
    "max_seq_len": 7,
    "check_finite": False,
}


def changed(name: str) -> dict:
    """Return keyword arguments that change one field, with the gate that a bias needs."""
    return {"gate": "gru"} | {name: CHANGED[name]} if name == "gate_bias" else {name: CHANGED[name]}


# Values


def test_defaults():
    assert AttentionConfig().to_dict() == {
        "dim": 64,
        "num_heads": 4,
        "num_layers": 2,
        "window": 32,
        "ffn_dim": 128,
        "head_dim": None,
        "position": "rotary",
        "gate": "residual",
        "gate_bias": 2.0,
        "dropout": 0.0,
        "prev_actions": 0,
        "prev_rewards": 0,
        "max_seq_len": None,
        "check_finite": True,
    }


def test_every_field_has_a_changed_value_and_is_documented():
    assert sorted(CHANGED) == sorted(FIELDS)
    for name in FIELDS:
        assert f"\n    {name}: " in inspect.cleandoc(AttentionConfig.__doc__)


def test_is_keyword_only_and_frozen():
    with pytest.raises(TypeError, match="positional"):
        AttentionConfig(64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        AttentionConfig().dim = 3


@pytest.mark.parametrize(
    ("fields", "receptive_field", "context_len", "history_len"),
    [
        ({"num_layers": 1, "window": 1}, 1, 0, 0),
        ({"num_layers": 3, "window": 1, "prev_rewards": 2}, 1, 0, 2),
        ({"num_layers": 1, "window": 32}, 32, 31, 31),
        ({"num_layers": 2, "window": 32, "prev_actions": 4, "prev_rewards": 1}, 63, 62, 66),
        ({"num_layers": 4, "window": 8, "prev_actions": 1, "prev_rewards": 5}, 29, 28, 33),
    ],
)
def test_lengths(fields, receptive_field, context_len, history_len):
    config = AttentionConfig(**fields)
    assert config.receptive_field == receptive_field
    assert config.context_len == context_len
    assert config.history_len == history_len


def test_head_size():
    assert AttentionConfig(dim=64, num_heads=4).head_size == 16
    assert AttentionConfig(dim=64, num_heads=4, head_dim=10).head_size == 10


@pytest.mark.parametrize("number_type", [np.int8, np.int64, np.uint16])
def test_numpy_integers_become_python_integers(number_type):
    config = AttentionConfig(window=number_type(8), head_dim=number_type(6))
    assert (type(config.window), type(config.head_dim)) == (int, int)
    assert config == AttentionConfig(window=8, head_dim=6)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.float16(0.5)])
def test_numpy_floats_become_python_floats(value):
    config = AttentionConfig(dropout=value)
    assert type(config.dropout) is float
    assert config == AttentionConfig(dropout=0.5)


def test_integers_become_floats_where_a_float_is_due():
    config = AttentionConfig(gate="gru", gate_bias=np.int64(3), dropout=0)
    assert (type(config.gate_bias), type(config.dropout)) == (float, float)


def test_numpy_bools_and_strings_become_python_ones():
    config = AttentionConfig(check_finite=np.bool_(False), position=np.str_("none"))
    assert config.check_finite is False
    assert type(config.position) is str


# Wrong types


def type_message(name, expected, value, mend):
    kind = type(value).__name__
    return re.escape(
        f"AttentionConfig.{name} must be {expected}, got {value!r} ({kind}). Mend it with `{mend}`."
    )


@pytest.mark.parametrize("value", ["8", 8.0, np.float32(8), True, np.True_, [8], None, np.ones(1)])
@pytest.mark.parametrize("name", INT_FIELDS)
def test_integer_fields_refuse_other_types(name, value):
    if name in ("head_dim", "max_seq_len") and value is None:
        return  # None is their default.
    mend = f"use_attention(config, {name}={INT_FIELDS[name][1]})"
    with pytest.raises(TypeError, match=f"^{type_message(name, 'an int', value, mend)}$"):
        AttentionConfig(**{name: value})


@pytest.mark.parametrize("value", ["0.5", True, np.False_, 1j, [0.5], None])
@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("dropout", "use_attention(config, dropout=0.0)"),
        ("gate_bias", "use_attention(config, gate='gru', gate_bias=2.0)"),
    ],
)
def test_float_fields_refuse_other_types(name, mend, value):
    with pytest.raises(TypeError, match=f"^{type_message(name, 'a float', value, mend)}$"):
        AttentionConfig(**{name: value})


@pytest.mark.parametrize("value", [1, None, b"none", True, ["none"]])
@pytest.mark.parametrize(("name", "default"), [("position", "rotary"), ("gate", "residual")])
def test_string_fields_refuse_other_types(name, default, value):
    mend = f"use_attention(config, {name}='{default}')"
    with pytest.raises(TypeError, match=f"^{type_message(name, 'a str', value, mend)}$"):
        AttentionConfig(**{name: value})


@pytest.mark.parametrize("value", [0, 1, "yes", None, 1.0, np.int64(1)])
def test_check_finite_refuses_other_types(value):
    mend = "use_attention(config, check_finite=True)"
    with pytest.raises(TypeError, match=f"^{type_message('check_finite', 'a bool', value, mend)}$"):
        AttentionConfig(check_finite=value)


@pytest.mark.parametrize("space", [tune.grid_search([8, 16]), tune.choice([8, 16])])
@pytest.mark.parametrize("name", FIELDS)
def test_search_spaces_are_sent_to_use_attention(name, space):
    gate = "gate='gru', " if name == "gate_bias" else ""
    message = (
        f"AttentionConfig.{name} must be a plain value, got the search space {space!r}. "
        f"Mend it with `use_attention(config, {gate}{name}=tune.grid_search([...]))`."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        AttentionConfig(**{name: space})


# Out of range


@pytest.mark.parametrize("name", INT_FIELDS)
def test_integer_fields_refuse_values_below_their_minimum(name):
    minimum, example = INT_FIELDS[name]
    message = (
        f"AttentionConfig.{name} must be at least {minimum}, got {minimum - 1}. "
        f"Mend it with `use_attention(config, {name}={example})`."
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
        "Mend it with `use_attention(config, dropout=0.0)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(dropout=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("gate", ["gru", "residual"])
def test_gate_bias_must_be_finite(gate, value):
    message = (
        f"AttentionConfig.gate_bias must be finite, got {value!r}. "
        "Mend it with `use_attention(config, gate='gru', gate_bias=2.0)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(gate=gate, gate_bias=value)


@pytest.mark.parametrize(
    ("name", "choices", "default"),
    [
        ("position", "'recency', 'rotary', 'relative', 'none'", "rotary"),
        ("gate", "'residual', 'gru'", "residual"),
    ],
)
@pytest.mark.parametrize("value", ["", "Rotary", "lstm"])
def test_choices(name, choices, default, value):
    message = (
        f"AttentionConfig.{name} must be one of {choices}, got {value!r}. "
        f"Mend it with `use_attention(config, {name}='{default}')`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(**{name: value})


# Fields that contradict each other


@pytest.mark.parametrize(
    ("fields", "mended_dim"),
    [
        ({"dim": 64, "num_heads": 3}, 66),
        ({"dim": 10, "num_heads": 4, "position": "none"}, 12),
        ({"dim": 10, "num_heads": 4}, 16),
        ({"dim": 2, "num_heads": 4}, 8),
    ],
)
def test_dim_must_split_into_heads(fields, mended_dim):
    dim, heads = fields["dim"], fields["num_heads"]
    message = (
        "AttentionConfig.dim must be a multiple of num_heads while head_dim is None, "
        f"got dim={dim} and num_heads={heads}. Mend it with "
        f"`use_attention(config, dim={mended_dim}, num_heads={heads})` or by setting head_dim."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(**fields)
    AttentionConfig(**fields | {"dim": mended_dim})
    AttentionConfig(**fields, head_dim=6)


def test_rotary_needs_an_even_head_size():
    message = (
        "AttentionConfig's head size dim // num_heads must be even with position='rotary' (it "
        "turns pairs of numbers), got 5 from dim=20 and num_heads=4. "
        "Mend it with `use_attention(config, dim=24, num_heads=4)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(dim=20, num_heads=4)
    AttentionConfig(dim=24, num_heads=4)
    AttentionConfig(dim=20, num_heads=4, position="relative")
    AttentionConfig(dim=20, num_heads=4, position="none")


def test_rotary_needs_an_even_head_dim():
    message = (
        "AttentionConfig.head_dim must be even with position='rotary' (it turns pairs of "
        "numbers), got 5. Mend it with `use_attention(config, head_dim=6)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(head_dim=5)
    AttentionConfig(head_dim=6)
    AttentionConfig(head_dim=5, position="relative")


def test_gate_bias_needs_the_gate_that_reads_it():
    message = (
        "AttentionConfig.gate_bias is only read with gate='gru', got gate_bias=1.0 with "
        "gate='residual'. Mend it with `use_attention(config, gate='gru', gate_bias=1.0)` or by "
        "leaving gate_bias out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig(gate_bias=1)
    AttentionConfig(gate_bias=2.0)
    AttentionConfig(gate="gru", gate_bias=1)


def test_types_are_checked_before_ranges_and_ranges_before_combinations():
    with pytest.raises(TypeError, match=re.escape("AttentionConfig.dropout must be a float")):
        AttentionConfig(dim=-1, dropout="high")
    with pytest.raises(ValueError, match=re.escape("AttentionConfig.dropout must be at least 0")):
        AttentionConfig(dim=63, dropout=-1.0)


# In and out


@pytest.mark.parametrize("name", FIELDS)
def test_round_trips(name):
    config = AttentionConfig(**changed(name))
    assert config != AttentionConfig()
    assert AttentionConfig.from_dict(config.to_dict()) == config
    assert AttentionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    assert hash(copy.copy(config)) == hash(config)


def test_equal_configs_share_a_hash_across_number_types():
    configs = {AttentionConfig(window=8), AttentionConfig(window=np.int32(8))}
    assert configs == {AttentionConfig(window=8)}


def test_from_dict_fills_in_defaults_and_validates():
    assert AttentionConfig.from_dict({}) == AttentionConfig()
    assert AttentionConfig.from_dict({"window": 3}) == AttentionConfig(window=3)
    with pytest.raises(ValueError, match=re.escape("AttentionConfig.window must be at least 1")):
        AttentionConfig.from_dict({"window": 0})


def test_to_dict_is_a_copy():
    config = AttentionConfig()
    config.to_dict()["dim"] = 3
    assert config.dim == 64


@pytest.mark.parametrize("value", [None, [("dim", 64)], "dim", 3])
def test_from_dict_refuses_other_types(value):
    kind = type(value).__name__
    message = f"AttentionConfig.from_dict(fields) must be a dict, got {value!r} ({kind})."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        AttentionConfig.from_dict(value)


@pytest.mark.parametrize("name", FIELDS)
def test_replace_changes_one_field_of_a_copy(name):
    config = AttentionConfig(gate="gru")
    replaced = config.replace(**{name: "residual" if name == "gate" else CHANGED[name]})
    differing = [key for key in FIELDS if getattr(replaced, key) != getattr(config, key)]
    assert differing == [name]
    assert config == AttentionConfig(gate="gru")


def test_replace_validates():
    with pytest.raises(ValueError, match=re.escape("AttentionConfig.window must be at least 1")):
        AttentionConfig().replace(window=0)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("windw", " Did you mean 'window'?"), ("heads", " Did you mean 'num_heads'?"), ("qqq", "")],
)
@pytest.mark.parametrize("way_in", ["from_dict", "replace", "gtrxl", "from_rllib"])
def test_unknown_keys_are_refused(way_in, key, hint):
    message = f"AttentionConfig has no field {key!r}.{hint} Known fields: {', '.join(FIELDS)}."
    build = {
        "from_dict": lambda: AttentionConfig.from_dict({key: 3}),
        "replace": lambda: AttentionConfig().replace(**{key: 3}),
        "gtrxl": lambda: AttentionConfig.gtrxl(**{key: 3}),
        "from_rllib": lambda: AttentionConfig.from_rllib({}, **{key: 3}),
    }[way_in]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build()


def test_unknown_keys_that_are_no_strings_are_refused():
    with pytest.raises(ValueError, match=re.escape("AttentionConfig has no field 3.")):
        AttentionConfig.from_dict({3: 3})


# GTrXL and RLlib's old model dict


def test_gtrxl():
    assert AttentionConfig.gtrxl() == AttentionConfig(
        dim=64,
        num_heads=1,
        num_layers=1,
        window=51,
        ffn_dim=32,
        head_dim=32,
        position="relative",
        gate="gru",
        gate_bias=2.0,
        max_seq_len=20,
    )
    assert AttentionConfig.gtrxl(num_layers=4, dropout=0.5).num_layers == 4


def test_from_rllib_reads_rllibs_defaults():
    from_defaults = AttentionConfig.from_rllib(MODEL_DEFAULTS | {"use_attention": True})
    assert from_defaults == AttentionConfig.from_rllib({}) == AttentionConfig.gtrxl()


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("attention_num_transformer_units", 3, "num_layers", 3),
        ("attention_dim", 48, "dim", 48),
        ("attention_num_heads", 5, "num_heads", 5),
        ("attention_head_dim", 7, "head_dim", 7),
        ("attention_memory_inference", 0, "window", 1),
        ("attention_memory_inference", np.int64(9), "window", 10),
        ("attention_position_wise_mlp_dim", 11, "ffn_dim", 11),
        ("attention_init_gru_gate_bias", 1, "gate_bias", 1.0),
        ("attention_use_n_prev_actions", 2, "prev_actions", 2),
        ("attention_use_n_prev_rewards", 3, "prev_rewards", 3),
        ("max_seq_len", 13, "max_seq_len", 13),
    ],
)
def test_each_rllib_key_sets_its_field_alone(key, value, field, expected):
    expected_config = AttentionConfig.gtrxl(**{field: expected})
    assert AttentionConfig.from_rllib({key: value}) == expected_config != AttentionConfig.gtrxl()
    assert AttentionConfig.from_rllib(MODEL_DEFAULTS | {key: value}) == expected_config


def test_every_attention_key_of_rllib_is_read_or_known_to_do_nothing():
    for key in (key for key in MODEL_DEFAULTS if key.startswith("attention_")):
        read = AttentionConfig.from_rllib({key: 4}) != AttentionConfig.gtrxl()
        assert read == (key != "attention_memory_training")


@pytest.mark.parametrize(
    "model_dict",
    [
        {"attention_memory_training": 7},
        {"fcnet_hiddens": [32], "conv_filters": None, "use_attention": True, "use_lstm": False},
        {"use_attention": False, "lstm_cell_size": 3, 4: 5},
    ],
)
def test_from_rllib_leaves_other_keys_alone(model_dict):
    before = copy.deepcopy(model_dict)
    assert AttentionConfig.from_rllib(model_dict) == AttentionConfig.gtrxl()
    assert model_dict == before


def test_from_rllib_overrides_come_last():
    model_dict = {"attention_dim": 32, "attention_memory_inference": 5}
    config = AttentionConfig.from_rllib(model_dict, dim=48, window=9, gate="residual")
    assert (config.dim, config.window, config.gate) == (48, 9, "residual")


def test_from_rllib_refuses_lstm():
    message = (
        "AttentionConfig.from_rllib reads an attention model, got use_lstm=True. Mend it with "
        "`AttentionConfig.from_rllib({**model_dict, 'use_lstm': False})`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig.from_rllib({"use_lstm": True, "use_attention": True})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("attention_head_dims", " Did you mean 'attention_head_dim'?"),
        ("attention_zzzzzzzzzzzzzzzzzzzzzzzzz", ""),
    ],
)
def test_from_rllib_refuses_unknown_attention_keys(key, hint):
    known = (
        "attention_num_transformer_units, attention_dim, attention_num_heads, attention_head_dim, "
        "attention_position_wise_mlp_dim, attention_init_gru_gate_bias, "
        "attention_use_n_prev_actions, attention_use_n_prev_rewards, attention_memory_inference, "
        "attention_memory_training"
    )
    message = f"AttentionConfig has no RLlib key {key!r}.{hint} Known RLlib keys: {known}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig.from_rllib({key: 3})


@pytest.mark.parametrize("value", ["50", None, True, 1.5])
def test_from_rllib_refuses_a_memory_of_another_type(value):
    message = (
        "AttentionConfig.from_rllib's attention_memory_inference must be an int, got "
        f"{value!r} ({type(value).__name__}). Mend it with "
        "`AttentionConfig.from_rllib({'attention_memory_inference': 50})`."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        AttentionConfig.from_rllib({"attention_memory_inference": value})


def test_from_rllib_refuses_a_negative_memory():
    message = (
        "AttentionConfig.from_rllib's attention_memory_inference must be at least 0, got -1. "
        "Mend it with `AttentionConfig.from_rllib({'attention_memory_inference': 50})`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AttentionConfig.from_rllib({"attention_memory_inference": -1})


def test_from_rllib_validates_like_the_constructor():
    with pytest.raises(TypeError, match=re.escape("AttentionConfig.dim must be an int")):
        AttentionConfig.from_rllib({"attention_dim": "wide"})


@pytest.mark.parametrize("value", [None, "use_attention", [1]])
def test_from_rllib_refuses_other_types(value):
    kind = type(value).__name__
    message = f"AttentionConfig.from_rllib(model_dict) must be a dict, got {value!r} ({kind})."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        AttentionConfig.from_rllib(value)


def test_the_module_imports_neither_ray_nor_torch_nor_numpy():
    # Loaded by path: importing the package itself brings in Ray where it is installed.
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("config", {config_module.__file__!r})
module = sys.modules["config"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.AttentionConfig().window == 32
heavy = {{"ray", "torch", "numpy", "gymnasium"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent)
