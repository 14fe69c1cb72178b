"""Random options: valid ones round-trip and build, all others are refused by the field's name."""

import pickle
import re

from hypothesis import assume, given
from hypothesis import strategies as st

from rllib_attention import AttentionConfig
from rllib_attention.nn import Transformer
from rllib_attention.nn.positions import POSITIONS

FIELDS = list(AttentionConfig.__dataclass_fields__)

VALID = st.fixed_dictionaries(
    {"num_heads": st.integers(1, 4)},
    optional={
        "num_layers": st.integers(1, 4),
        "window": st.integers(1, 300),
        "dilation": st.integers(1, 40),
        "ffn_dim": st.integers(0, 9),
        "head_dim": st.sampled_from([2, 4, 10]),
        "position": st.none() | st.sampled_from(POSITIONS),
        "gate": st.sampled_from(["residual", "gru"]),
        "token_size": st.none() | st.floats(0, 9),
        "start_embedding": st.none() | st.booleans(),
        "dropout": st.none() | st.floats(0, 0.99),
        "prev_actions": st.integers(0, 5),
        "prev_rewards": st.integers(0, 5),
        "max_seq_len": st.none() | st.integers(1, 500),
        "check_finite": st.booleans(),
    },
)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([*POSITIONS, "residual", "gru"]),
)


def problem_of(options):
    """Returns what is said against some options, None if they are taken."""
    try:
        AttentionConfig(**options)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


@given(VALID)
def test_valid_options_round_trip_and_build(options):
    assume(options.get("dilation", 1) == 1 or options.get("num_layers", 2) > 1)
    options["dim"] = 4 * options["num_heads"]
    config = AttentionConfig(**options)
    assert AttentionConfig.from_dict(config.to_dict()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config.replace()) == hash(config)
    strides = [config.dilation**layer for layer in range(config.num_layers)]
    assert config.context_len == (config.window - 1) * sum(strides)
    assert config.receptive_field == config.context_len + 1
    model = Transformer(
        dim=config.dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        head_size=config.head_size,
        window=config.window,
        dilation=config.dilation,
        ffn_dim=config.ffn_dim,
        position=config.for_path(windowed=False).position,
        gate=config.gate,
    )
    assert model.context_len == config.context_len


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3))
def test_whatever_is_refused_is_named(options):
    problem = problem_of(options)
    if problem is None:
        config = AttentionConfig(**options)
        assert AttentionConfig.from_dict(config.to_dict()) == config
    else:
        named = set(re.findall(r"\w+", problem))
        assert named & set(options), f"{problem} names none of {options}"


@given(st.text("abcdefghij_", min_size=1, max_size=12), ANYTHING)
def test_unknown_fields_are_refused_by_name(name, value):
    assume(name not in FIELDS)
    assert name in (problem_of({name: value}) or "")
