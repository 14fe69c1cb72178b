"""The ready search space: all of it is valid, and it goes into `use_attention` and Tune."""

import itertools
import re

import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionConfig, attention_search_space, use_attention
from rllib_attention.search_space import (
    is_search_space,
    known_setting,
    longest_history,
    split_overrides,
)
from tests.refusal import refuses


def categories(**maxima: int) -> dict[str, list[int]]:
    return {name: space.categories for name, space in attention_search_space(**maxima).items()}


def test_defaults():
    assert categories() == {
        "num_layers": [1, 2, 3],
        "window": [8, 16, 32, 64],
        "num_heads": [1, 2, 4],
        "dim": [32, 64, 128],
        "lr_factor": [0.1, 0.3, 1.0],
        "token_size": [0.4, 1.0, 2.5],
    }


@pytest.mark.parametrize(
    "maxima",
    [
        {},
        {"max_layers": 1, "max_window": 2, "max_heads": 1, "max_dim": 8},
        {"max_heads": 16, "max_dim": 64},
        {"max_window": 100, "max_heads": 2, "max_dim": 48},
        {"max_heads": 3, "max_dim": 12},
        {"max_layers": 2, "max_dilation": 20},
    ],
)
def test_every_combination_is_valid(maxima):
    values = categories(**maxima)
    for name, maximum in maxima.items():
        field = name.replace("max_", "num_") if name in ("max_layers", "max_heads") else name[4:]
        assert values[field][-1] == maximum
    for combination in itertools.product(*values.values()):
        AttentionConfig(**dict(zip(values, combination, strict=True)))


def test_dilation_is_searched_when_asked():
    values = categories(max_layers=2, max_dilation=20)
    assert values["dilation"] == [1, 2, 4, 8, 16, 20]
    assert values["num_layers"] == [2]


@pytest.mark.parametrize(
    ("maxima", "error", "message"),
    [
        ({"max_layers": 0}, ValueError, "max_layers must be at least 1, got 0."),
        ({"max_window": 1}, ValueError, "max_window must be at least 2, got 1."),
        ({"max_dim": 4}, ValueError, "max_dim must be at least 8, got 4."),
        ({"max_dim": 64.0}, TypeError, "max_dim must be an int, got 64.0 (float)."),
        ({"max_heads": True}, TypeError, "max_heads must be an int, got True (bool)."),
        ({"max_dilation": 0}, ValueError, "max_dilation must be at least 1, got 0."),
        (
            {"max_layers": 1, "max_dilation": 4},
            ValueError,
            "max_dilation=4 needs a second layer, got max_layers=1. Use e.g. "
            "`attention_search_space(max_layers=2, max_dilation=4)`.",
        ),
        ({"max_heads": 32}, ValueError, "max_heads=32 must leave heads of even size"),
        ({"max_heads": 3}, ValueError, "at the smallest width, 32. Use e.g. `attention_search"),
    ],
)
def test_bad_maxima(maxima, error, message):
    with pytest.raises(error, match=re.escape(message)):
        attention_search_space(**maxima)


def test_the_lookback_covers_the_largest_trial():
    space = attention_search_space(max_layers=2, max_window=16)
    assert longest_history(split_overrides(None, space)) == 2 * 15
    config = use_attention(PPOConfig().environment("CartPole-v1"), **space)
    assert config.episode_lookback_horizon >= 30
    dilated = attention_search_space(max_layers=2, max_window=16, max_dilation=8)
    assert longest_history(split_overrides(None, dilated)) == 15 * (1 + 8)


def test_plain_values_may_stand_beside_it():
    space = attention_search_space() | {"num_layers": 1}
    config = use_attention(PPOConfig().environment("CartPole-v1"), **space)
    assert config.episode_lookback_horizon >= 63


# Options of which some are searched


def candidates(attention=None, **overrides) -> list[AttentionConfig]:
    return split_overrides(attention, overrides).candidates()


def test_plain_options():
    space = split_overrides(AttentionConfig(window=9), {"num_layers": 1})
    assert not space.is_searched
    assert space.candidates() == [AttentionConfig(window=9, num_layers=1)]
    assert space.to_dict() == AttentionConfig(window=9, num_layers=1).to_dict()


def test_searched_options_stand_beside_plain_ones():
    window = tune.grid_search([4, 8])
    space = split_overrides(None, {"window": window, "num_layers": 1})
    assert space.is_searched
    assert space.to_dict() == AttentionConfig(num_layers=1).to_dict() | {"window": window}
    assert space.candidates() == [AttentionConfig(num_layers=1, window=w) for w in (4, 8)]


@pytest.mark.parametrize(
    ("search", "longest"),
    [
        (tune.grid_search([4, 32, 8]), 32),
        (tune.choice([32, 4]), 32),
        (tune.randint(4, 33), 32),
        (tune.lograndint(4, 33), 32),
        (tune.qrandint(4, 32, 4), 32),  # these two have their upper end in them
        (tune.qlograndint(4, 32, 4), 32),
        (tune.sample_from(lambda: 32), 32),
    ],
)
def test_the_longest_history_is_that_of_the_longest_window(search, longest):
    """What Tune draws is never longer."""
    space = split_overrides(None, {"window": search, "num_layers": 1})
    assert longest_history(space) == longest - 1
    draw = getattr(search, "sample", lambda: max(search["grid_search"]))
    assert max(draw() for _ in range(200)) <= longest


def test_ranges_of_floats():
    assert [c.dropout for c in candidates(dropout=tune.uniform(0.1, 0.5))] == [0.1, 0.5]
    [found] = candidates(gate="gru", gate_bias=tune.randn(2.0, 0.1))
    assert 0 < found.gate_bias < 4


def test_combinations_that_are_not_valid_are_left_out():
    found = candidates(dim=tune.choice([32, 48]), num_heads=tune.choice([4, 6]))
    assert [(c.dim, c.num_heads) for c in found] == [(32, 4), (48, 4), (48, 6)]


def test_functions_of_other_options_are_refused():
    config = PPOConfig()
    space = tune.sample_from(lambda spec: spec.config.lr * 2)
    with refuses(config, ValueError, "Expected a search space that says by itself which values"):
        use_attention(config, window=space)


# Settings of the user


def test_settings_that_are_known_or_left_to_tune():
    config = PPOConfig().training(minibatch_size=tune.choice([64, 128]), lr=3e-4)
    assert known_setting(config, "minibatch_size") is None
    assert known_setting(config, "lr") == 3e-4
    assert known_setting(config, "n_step") is None
    config.replay_buffer_config = {"type": "EpisodeReplayBuffer", "alpha": tune.choice([0.5, 0.6])}
    assert known_setting(config, "replay_buffer_config") is None


@pytest.mark.parametrize(
    ("value", "is_space"),
    [
        (tune.grid_search([1]), True),
        (tune.choice([1]), True),
        (tune.sample_from(lambda: 1), True),
        (3, False),
        ({"a": 1}, False),
        ([tune.choice([1])], False),
        (None, False),
    ],
)
def test_is_search_space(value, is_space):
    assert is_search_space(value) is is_space
