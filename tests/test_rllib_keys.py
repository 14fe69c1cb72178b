"""GTrXL's options, and RLlib's old model dict."""

import copy
import re

import numpy as np
import pytest
from ray.rllib.models.catalog import MODEL_DEFAULTS

from rllib_attention import rllib_keys
from rllib_attention.config import AttentionConfig


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
        token_size=0.0,
        start_embedding=False,
        dropout=0.0,
        lr_factor=1.0,
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
        "AttentionConfig.from_rllib reads an attention model, got use_lstm=True. Fix: "
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
        f"{value!r} ({type(value).__name__}). Fix: "
        "`AttentionConfig.from_rllib({'attention_memory_inference': 50})`."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        AttentionConfig.from_rllib({"attention_memory_inference": value})


def test_from_rllib_refuses_a_negative_memory():
    message = (
        "AttentionConfig.from_rllib's attention_memory_inference must be at least 0, got -1. "
        "Fix: `AttentionConfig.from_rllib({'attention_memory_inference': 50})`."
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


def test_the_copied_defaults_are_rllibs():
    for key, (_, default) in rllib_keys.FIELDS.items():
        assert MODEL_DEFAULTS[key] == default
    assert MODEL_DEFAULTS[rllib_keys.MEMORY] == rllib_keys.MEMORY_DEFAULT
    assert set(rllib_keys.KNOWN) == {key for key in MODEL_DEFAULTS if key.startswith("attention_")}


def test_hints_are_for_rllibs_keys_only():
    assert all(rllib_keys.hint_for(key) for key in [*rllib_keys.KNOWN, "use_attention"])
    assert rllib_keys.hint_for("windw") == rllib_keys.hint_for(3) == ""
