"""The ready search space: all of it is valid, and it goes into `use_attention` and Tune."""

import itertools
import re

import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionConfig, attention_search_space, use_attention
from rllib_attention.search_space import longest_history, split_overrides


def categories(**maxima: int) -> dict[str, list[int]]:
    return {name: space.categories for name, space in attention_search_space(**maxima).items()}


def test_defaults():
    assert categories() == {
        "num_layers": [1, 2, 3],
        "window": [8, 16, 32, 64],
        "num_heads": [1, 2, 4],
        "dim": [32, 64, 128],
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
