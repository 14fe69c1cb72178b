"""Checks of constructor arguments: each names the argument, what was expected and what came."""

import math
import numbers
from typing import Any


def check_int(name: str, value: Any, minimum: int) -> None:
    """Requires an integer of at least `minimum`.

    Args:
        name: What the error calls the argument.
        value: What was given.
        minimum: The smallest allowed value.

    Raises:
        ValueError: If `value` is no integer or too small.
    """
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_int or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}, got {value!r}.")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Requires a finite number in [low, high).

    Args:
        name: What the error calls the argument.
        value: What was given.
        low: The smallest allowed value.
        high: The bound above, not allowed itself.

    Raises:
        ValueError: If `value` is no finite number or out of its range.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) and low <= value < high):
        where = "" if math.isinf(low) else f" in [{low:g}, {high:g})"
        raise ValueError(f"`{name}` must be a finite number{where}, got {value!r}.")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Requires one of some names.

    Args:
        name: What the error calls the argument.
        value: What was given.
        choices: The allowed names.

    Raises:
        ValueError: If `value` is none of them.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}, got {value!r}.")
