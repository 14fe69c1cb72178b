"""AttentionConfig: its fields, what follows from them, and every way in and out."""

import ast
import copy
import dataclasses
import inspect
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import rllib_attention
from rllib_attention.config import AttentionConfig

FIELDS = [field.name for field in dataclasses.fields(AttentionConfig)]
# A valid value other than the default for each field.
CHANGED = {
    "dim": 32,
    "num_heads": 2,
    "num_layers": 3,
    "window": 5,
    "dilation": 4,
    "ffn_dim": 0,
    "head_dim": 10,
    "position": "none",
    "gate": "gru",
    "gate_bias": 1.5,
    "token_size": 2.5,
    "start_embedding": False,
    "dropout": 0.25,
    "lr_factor": 0.5,
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
        "dilation": 1,
        "ffn_dim": 128,
        "head_dim": None,
        "position": None,
        "gate": "residual",
        "gate_bias": 2.0,
        "token_size": None,
        "start_embedding": None,
        "dropout": None,
        "lr_factor": None,
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
        ({"num_layers": 2, "window": 32, "dilation": 32, "prev_rewards": 1}, 1024, 1023, 1024),
        ({"num_layers": 3, "window": 22, "dilation": 22}, 10648, 10647, 10647),
        ({"num_layers": 3, "window": 2, "dilation": 5}, 32, 31, 31),
        ({"num_layers": 2, "window": 1, "dilation": 5}, 1, 0, 0),
    ],
)
def test_lengths(fields, receptive_field, context_len, history_len):
    config = AttentionConfig(**fields)
    assert config.receptive_field == receptive_field
    assert config.context_len == context_len
    assert config.history_len == history_len


def computes(config, *, windowed=False):
    options = config.for_path(windowed=windowed)
    return options.token_size, options.start_embedding


def test_norms_and_start_embeddings_are_for_policies_on_chunks_unless_set():
    assert computes(AttentionConfig()) == (1.0, True)
    assert computes(AttentionConfig(), windowed=True) == (0.0, False)
    for windowed in (True, False):
        config = AttentionConfig(token_size=2.5, start_embedding=False)
        assert computes(config, windowed=windowed) == (2.5, False)


def test_all_options_of_an_older_version_compute_what_they_did():
    older = AttentionConfig(dim=8, position="recency").to_dict()
    del older["token_size"], older["start_embedding"]
    assert computes(AttentionConfig.from_dict(older)) == (0.0, False)
    assert computes(AttentionConfig.from_dict(older | {"token_size": 2.5})) == (2.5, False)
    # Whoever writes options by hand leaves some out, and has the defaults of today.
    del older["check_finite"]
    assert computes(AttentionConfig.from_dict(older)) == (1.0, True)


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


def test_dicts_of_earlier_versions_have_no_dilation():
    config = AttentionConfig(window=8)
    fields = config.to_dict()
    assert fields.pop("dilation") == 1
    assert AttentionConfig.from_dict(fields) == config


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


WAYS_IN = {
    "the constructor": lambda key: AttentionConfig(**{key: 3}),
    "from_dict": lambda key: AttentionConfig.from_dict({key: 3}),
    "replace": lambda key: AttentionConfig().replace(**{key: 3}),
    "gtrxl": lambda key: AttentionConfig.gtrxl(**{key: 3}),
    "from_rllib": lambda key: AttentionConfig.from_rllib({}, **{key: 3}),
}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("windw", " Did you mean 'window'?"),
        ("heads", " Did you mean 'num_heads'?"),
        ("n_layers", " Did you mean 'num_layers'?"),
        ("qqq", ""),
    ],
)
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_unknown_keys_are_refused(way_in, key, hint):
    message = f"AttentionConfig has no field {key!r}.{hint} Known fields: {', '.join(FIELDS)}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WAYS_IN[way_in](key)


def test_unknown_keys_that_are_no_strings_are_refused():
    with pytest.raises(ValueError, match=re.escape("AttentionConfig has no field 3.")):
        AttentionConfig.from_dict({3: 3})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("attention_dim", "It is RLlib's name for 'dim'. Use `dim=...`, or let `AttentionConfig."),
        (
            "attention_memory_inference",
            "It is RLlib's name for 'window'. Use `window=...`, RLlib's",
        ),
        ("attention_memory_training", "Leave it out: RLlib reads it nowhere."),
        ("use_attention", "Leave it out: the call of `use_attention(config)` says it."),
    ],
)
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_rllibs_keys_get_a_pointer_to_ours(way_in, key, hint):
    with pytest.raises(ValueError, match=re.escape(f"no field {key!r}. {hint}")):
        WAYS_IN[way_in](key)


def test_the_constructor_looks_like_a_dataclass():
    """What an editor or `help()` shows."""
    parameters = inspect.signature(AttentionConfig).parameters
    assert list(parameters) == FIELDS
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters["window"].default == 32


def test_every_field_is_read_outside_of_its_checks():
    """Here, `head_dim` becomes `head_size`."""
    read = set()
    for path in Path(rllib_attention.__file__).parent.rglob("*.py"):
        if path.name not in ("config_checks.py", "rllib_keys.py"):
            nodes = ast.walk(ast.parse(path.read_text()))
            read |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert set(FIELDS) <= read


def test_queries_are_turned_on_replayed_windows_only_unless_said():
    assert AttentionConfig().for_path(windowed=False).position == "relative_bias"
    assert AttentionConfig().for_path(windowed=True).position == "recency"
    for windowed in (True, False):
        assert AttentionConfig(position="none").for_path(windowed=windowed).position == "none"


def test_dropout_left_out_acts_on_chunks_only():
    config = AttentionConfig()
    assert config.for_path(windowed=False).dropout > 0 == config.for_path(windowed=True).dropout
    for windowed in (True, False):
        assert config.replace(dropout=0.3).for_path(windowed=windowed).dropout == 0.3
