"""Interleaved measurements: every candidate in every round, ratios within rounds."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Spread(NamedTuple):
    """A median with its lowest and highest value."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """Returns `median (low–high)`.

        Args:
            digits: After the point.
            scale: Multiplies each number.

        Returns:
            The text.
        """
        median, low, high = (f"{value * scale:,.{digits}f}" for value in self)
        return f"{median} ({low}–{high})"


def spread(values: list[float]) -> Spread:
    """Returns the median, the lowest and the highest of some values."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(numerator: list[float], denominator: list[float]) -> Spread:
    """Compares two interleaved series.

    Both values of a round were taken within seconds of each other, so that a machine which slows
    down for a while slows both: hence the ratios of rounds, not the ratio of medians.

    Args:
        numerator: One value a round.
        denominator: Of the same rounds.

    Returns:
        The spread of the rounds' ratios.

    Raises:
        ValueError: If the series differ in length.
    """
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def seconds(action: Callable[[], object]) -> float:
    """Returns how long a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleave(
    candidates: Mapping[Name, Callable[[], Mapping[str, float]]], rounds: int
) -> dict[Name, dict[str, list[float]]]:
    """Lets every candidate take its turn in every round, in changing order.

    Args:
        candidates: By name, what does a turn and returns figures by name.
        rounds: Measured rounds; one more, before them, warms up.

    Returns:
        One figure a round, by candidate and figure.
    """
    figures: dict[Name, dict[str, list[float]]] = {name: {} for name in candidates}
    names = list(candidates)
    for index in range(rounds + 1):
        for name in names if index % 2 else reversed(names):
            gc.collect()  # so that nobody pays for another's garbage
            turn = candidates[name]()
            for figure, value in turn.items() if index else ():
                figures[name].setdefault(figure, []).append(value)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return figures
