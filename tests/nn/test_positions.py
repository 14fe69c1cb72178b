"""Position schemes by name."""

import re

import pytest

from rllib_attention.nn import (
    NoPosition,
    RecencyPosition,
    RelativeBias,
    RelativePosition,
    RotaryPosition,
)
from rllib_attention.nn.positions import POSITIONS, make_position

KINDS = {
    "relative_bias": RelativeBias,
    "relative": RelativePosition,
    "recency": RecencyPosition,
    "rotary": RotaryPosition,
    "none": NoPosition,
}


@pytest.mark.parametrize("name", POSITIONS)
def test_names(name):
    position = make_position(name, dim=4, num_heads=2, head_size=2, window=3)
    assert type(position) is KINDS[name]


def test_unknown_names_are_told():
    expected = (
        "`position` must be one of ('relative_bias', 'relative', 'recency', 'rotary', 'none'), "
        "got 'absolute'."
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        make_position("absolute", dim=4, num_heads=2, head_size=2, window=3)
