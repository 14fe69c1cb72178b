"""What every refusal of `use_attention` promises: a message, and a config as it was before.

with refuses(config, ValueError, "`minibatch_size` must be"):
    use_attention(config)
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


@contextmanager
def refuses(
    config: AlgorithmConfig, error: type[Exception], message: str
) -> Iterator[pytest.ExceptionInfo]:
    """Expects an error with a text, and that nothing was set.

    Args:
        config: What must not change.
        error: The error's class.
        message: A part of its text, literally.
    """
    before = state(config)
    with pytest.raises(error, match=re.escape(message)) as info:
        yield info
    assert state(config) == before


def state(config: AlgorithmConfig) -> dict[str, tuple[int, str]]:
    """Returns which objects a config holds, and what they hold."""
    return {name: (id(value), repr(value)) for name, value in vars(config).items()}
