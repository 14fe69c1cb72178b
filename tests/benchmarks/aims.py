"""The aims that this package sets itself, and whether a run has met them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.benchmarks.labels import ATTENTION, DEEP_LSTM, GTRXL, LABELS, LSTM, MLP, REPLAYING
from tests.benchmarks.learner_growth import BASE, CHUNK, SHORT, WINDOW
from tests.benchmarks.timing import Spread, ratio, spread

# Attention's time as a multiple of another model's, at most.
PPO_AIMS: dict[tuple[str, str], float] = {
    ("rollout", LSTM): 0.8,
    ("rollout", DEEP_LSTM): 0.8,
    ("rollout", GTRXL): 0.33,
    ("rollout", MLP): 1.6,
    ("learner", LSTM): 1.2,
    ("learner", DEEP_LSTM): 1.2,
    ("learner", GTRXL): 0.5,
    ("iteration", LSTM): 1.0,
    ("iteration", DEEP_LSTM): 1.0,
    ("iteration", GTRXL): 0.33,
}
# The same for replayed runs, with the transitions of a run: 8 are the default for batches of 256.
REPLAY_AIMS: dict[tuple[str, str, int], float] = {
    ("sac", "learner", 8): 1.6,
    ("sac", "iteration", 8): 1.5,
    ("sac", "iteration", 32): 1.2,
    ("dqn", "iteration", 8): 1.6,
    ("dqn", "iteration", 32): 1.3,
}
BATCH_BYTES = 0.06
ROLLOUT_GROWTH, LEARNER_GROWTH, BYTES, SHORT_EPISODES = 1.5, 2.1, 1.0, 1.3


class Figure(NamedTuple):
    """A ratio, and at most what it should be; None where there is no aim."""

    name: str
    value: Spread
    aim: float | None = None

    @property
    def verdict(self) -> str:
        """`met`, `not met`, or nothing; what counts is the median as it is printed."""
        if self.aim is None:
            return ""
        return "met" if round(self.value.median, 2) <= self.aim else "not met"


def figures(results: dict[str, Any]) -> Iterator[Figure]:
    """Lists the ratios of a run.

    Args:
        results: What `__main__` has measured; parts may be missing.

    Yields:
        The figures, those with aims and those that belong beside them.
    """
    for size, times in results.get("ppo", {}).items():
        yield from _ppo(size, times)
    for size, algorithms in results.get("replay", {}).items():
        for algorithm, times in algorithms.items():
            yield from _replay(algorithm, size, times)
    if "rollout" in results:
        yield from _rollout_growth(results["rollout"]["window"])
    if "learner" in results:
        yield from _learner_growth(results["learner"])
    if "bytes" in results:
        yield from _bytes(results["bytes"])


def _ppo(size: str, times: dict) -> Iterator[Figure]:
    for phase in ("rollout", "learner", "iteration"):
        for model in times:
            if model != ATTENTION:
                value = ratio(times[ATTENTION][phase], times[model][phase])
                aim = PPO_AIMS.get((phase, model))
                yield Figure(f"PPO {phase}, {size}, against {LABELS[model]}", value, aim)


def _replay(algorithm: str, size: str, times: dict) -> Iterator[Figure]:
    run_lens = [name for name in times if name != MLP]
    for run_len in run_lens:
        for phase in ("learner", "iteration"):
            name = f"{REPLAYING[algorithm]}, {phase}, {size}, runs of {run_len}, against the MLP"
            value = ratio(times[run_len][phase], times[MLP][phase])
            yield Figure(name, value, REPLAY_AIMS.get((algorithm, phase, int(run_len))))
    if "1" in run_lens:
        for run_len in run_lens:
            value = ratio(times[run_len]["bytes"], times["1"]["bytes"])
            name = f"{REPLAYING[algorithm]}, bytes of a batch, runs of {run_len} against windows"
            yield Figure(name, value, BATCH_BYTES if run_len == "32" else None)


def _rollout_growth(curve: dict) -> Iterator[Figure]:
    if {"32", "512"} <= curve.keys():
        for kind, words in (("steady", "in mid-fragment"), ("synced", "weight sync included")):
            value = ratio(curve["512"][kind], curve["32"][kind])
            yield Figure(f"rollout, window 512 against 32, {words}", value, ROLLOUT_GROWTH)


def _learner_growth(learner: dict) -> Iterator[Figure]:
    update, short, encoder = learner["update"], learner["short episodes"], learner["encoder"]
    base = update[BASE]["update"]
    for case in (CHUNK, WINDOW):
        value = ratio(update[case]["update"], base)
        yield Figure(f"learner update, {case}", value, LEARNER_GROWTH)
    for axis in ("chunk", "window"):
        points = encoder[axis]
        found = worst_doubling({int(n): figures["pass"] for n, figures in points.items()})
        if found:
            (low, high), value = found
            name = f"encoder alone, worst doubling of {axis} ({low} to {high})"
            yield Figure(name, value, LEARNER_GROWTH)
            flops = ratio(points[str(high)]["flops"], points[str(low)]["flops"])
            yield Figure("the same doubling in FLOPs that are needed", flops)
    longest = max(short, key=int)
    for chunk in (SHORT, SHORT + 1):
        value = ratio(short[longest]["update"], short[str(chunk)]["update"])
        name = f"learner update, episodes of {SHORT} steps, chunks of {longest} against {chunk}"
        yield Figure(name, value, SHORT_EPISODES)


def worst_doubling(
    curve: dict[int, list[float]],
) -> tuple[tuple[int, int], Spread] | None:
    """Finds where a curve grows most when its axis doubles.

    Args:
        curve: One value a round, by point on the axis.

    Returns:
        The two points and the spread of the ratio, or None if no point is twice another.
    """
    steps = [
        ((low, 2 * low), ratio(curve[2 * low], curve[low])) for low in curve if 2 * low in curve
    ]
    return max(steps, key=lambda step: step[1].median) if steps else None


def _bytes(counts: dict) -> Iterator[Figure]:
    shipped, stored = counts["shipped"], counts["stored"]
    if MLP not in shipped:
        return
    for kind, words in (("own", "lookback aside"), ("whole", "lookback included")):
        value = spread([shipped[ATTENTION][kind] / shipped[MLP][kind]])
        aim = BYTES if kind == "own" else None
        yield Figure(f"bytes shipped per env step, against {LABELS[MLP]}, {words}", value, aim)
    for algorithm, models in stored.items():
        value = spread([models[ATTENTION] / models[MLP]])
        name = f"{REPLAYING[algorithm]}, bytes stored per env step, against {LABELS[MLP]}"
        yield Figure(name, value, BYTES)
