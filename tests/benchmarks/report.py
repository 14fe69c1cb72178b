"""Results as Markdown: the aims first, then what they were worked out from."""

from collections.abc import Iterable
from typing import Any

from tests.benchmarks.aims import Figure, figures
from tests.benchmarks.labels import ATTENTION, CALLBACK, LABELS, MLP, REPLAYING, WITHOUT
from tests.benchmarks.timing import ratio, spread

_PHASES = ("rollout", "sample", "learner", "priorities", "iteration")
NOTES = """\
Figures are medians over rounds with (lowest–highest); ratios are taken within each round, attention
divided by the other model. Models are named `width x window`. The chunk is attention's
`max_seq_len`; LSTM and GTrXL train on their own, `seq_len`. Runs
of T are T replayed transitions that share a context; RLlib's SAC has no LSTM. Fragments of
the old stack hold advantages and value targets too. Most of the memory is RLlib itself: what
a model adds is the difference to the MLP. Growth figures of the encoder alone are of its
forward and backward pass on rows with a full context; where the window doubles and the chunk does
not, the context doubles too, so that the FLOPs needed may grow fourfold."""


def render(results: dict[str, Any]) -> str:
    """Renders a run.

    Args:
        results: What `__main__` has measured; parts may be missing.

    Returns:
        Markdown.
    """
    found = list(figures(results))
    sections = [_facts(results), NOTES, *([_aims(found)] if found else [])]
    for size, times in results.get("ppo", {}).items():
        sections += [f"## PPO, {size}, ms per 1,000 env steps"]
        sections += [_ppo(times, results["options"]["batch"])]
    for size, algorithms in results.get("replay", {}).items():
        for algorithm, times in algorithms.items():
            title = f"{REPLAYING[algorithm]}, {size}"
            sections += [f"## {title}: a step of each sub-environment, an update, ms"]
            sections += [_replay(times)]
    if "rollout" in results:
        sections += ["## Rollout growth, ms per 1,000 env steps", _curves(results["rollout"], 1e6)]
    if "learner" in results:
        sections += ["## Growth of the encoder's forward and backward pass"]
        sections += [_passes(results["learner"]["encoder"])]
    if "bytes" in results:
        sections += ["## Bytes per env step", *_bytes(results["bytes"])]
    if "memory" in results:
        sections += ["## Peak memory above imports, MB", _memory(results["memory"])]
    if "limit" in results:
        sections += ["## Share of the physical limit", _limit(results["limit"])]
    for size, calls in results.get("acting", {}).items():
        sections += [f"## Acting with `AttentionPolicy`, {size}, CPU time", _acting(calls)]
    if "callback" in results:
        title = "An evaluation with `AttentionMapCallback`, CPU time"
        sections += [f"## {title}", _callback(results["callback"])]
    return "\n\n".join(sections) + "\n"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Renders a Markdown table.

    Args:
        header: Titles of the columns.
        rows: Cells.

    Returns:
        The table, without a newline at its end.
    """
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(results: dict[str, Any]) -> str:
    machine = ", ".join(f"{name}: {value}" for name, value in results["machine"].items())
    options = ", ".join(f"{name}: {_plain(value)}" for name, value in results["options"].items())
    return f"# Benchmark\n\nMachine: {machine}.\n\nOptions: {options}."


def _plain(value: Any) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)


def _aims(found: list[Figure]) -> str:
    rows = [
        (name, value.text(), "" if aim is None else f"≤ {aim}", figure.verdict)
        for figure in found
        for name, value, aim in [figure]
    ]
    return table(("attention's ratio", "measured", "aim", ""), rows)


def _ppo(times: dict, batch: int) -> str:
    rows = []
    for model, by_phase in times.items():
        spreads = {phase: spread(values) for phase, values in by_phase.items()}
        steps, updates = 1 / spreads["rollout"].median, 1 / (spreads["learner"].median * batch)
        cells = [value.text(0, 1e6) for value in spreads.values()]
        rows.append((LABELS[model], *cells, f"{steps:,.0f}", f"{updates:.2f}"))
    return table(("model", *spreads, "rollout, env steps/s", "learner, updates/s"), rows)


def _replay(times: dict) -> str:
    rows = [
        (
            LABELS[MLP] if name == MLP else f"attention, runs of {name}",
            *(spread(figures[phase]).text(1, 1e3) for phase in _PHASES),
            f"{figures['bytes'][0] / 1e3:,.0f}",
        )
        for name, figures in times.items()
    ]
    return table(("model", *_PHASES, "kB of a batch's observations"), rows)


def _curves(curves: dict, scale: float) -> str:
    rows = [
        (axis, point, *(spread(values).text(1, scale) for values in kinds.values()))
        for axis, points in curves.items()
        for point, kinds in points.items()
    ]
    kinds = next(iter(next(iter(curves.values())).values()))
    return table(("axis", "value", *kinds), rows)


def _passes(curves: dict) -> str:
    rows = []
    for axis, points in curves.items():
        for point, kinds in points.items():
            time, flops = spread(kinds["pass"]), kinds["flops"][0]
            rate = flops / time.median
            cells = (time.text(1, 1e3), f"{flops / 1e9:.2f}", f"{rate / 1e9:.1f}")
            rows.append((axis, point, *cells))
    return table(("axis", "value", "ms", "GFLOP needed", "GFLOP/s"), rows)


def _bytes(counts: dict) -> list[str]:
    shipped = table(
        ("PPO model", "shipped, lookback included", "lookback aside"),
        [
            (LABELS[m], f"{c['whole']:,.0f}", f"{c['own']:,.0f}")
            for m, c in counts["shipped"].items()
        ],
    )
    stored = table(
        ("in the replay buffer of", LABELS[ATTENTION], LABELS[MLP]),
        [
            (REPLAYING[algorithm], f"{models[ATTENTION]:,.0f}", f"{models[MLP]:,.0f}")
            for algorithm, models in counts["stored"].items()
        ],
    )
    return [shipped, stored]


def _memory(memory: dict) -> str:
    rows = [
        (size, LABELS[model], *(f"{roles[role] / 1e6:,.0f}" for role in ("runner", "learner")))
        for size, models in memory.items()
        for model, roles in models.items()
    ]
    return table(("size", "PPO model", "runner", "learner"), rows)


def _acting(calls: dict) -> str:
    rows = [
        (number, spread(times).text(2, 1e3), spread(times).text(3, 1e3 / int(number)))
        for number, times in calls.items()
    ]
    return table(("sessions in a call", "ms per call", "ms per decision"), rows)


def _callback(models: dict) -> str:
    rows = []
    for model, times in models.items():
        plain, logged = times[WITHOUT], times[CALLBACK]
        cells = (spread(plain).text(), spread(logged).text(), ratio(logged, plain).text())
        rows.append((model, *cells))
    return table(("model", f"{WITHOUT}, s", f"{CALLBACK}, s", "ratio"), rows)


def _limit(limits: dict) -> str:
    rows = []
    for size, limit in limits.items():
        bare, encoder = limit["bare"], limit["encoder"]
        times = [spread(bare).text(1, 1e3), spread(encoder).text(1, 1e3)]
        share = ratio(bare, encoder).text(0, 100)
        rows.append((size, f"{limit['flops'] / 1e9:.2f}", *times, share))
    header = ("size", "GFLOP", "bare matrix products, ms", "encoder, ms", "share of the limit, %")
    return table(header, rows)
