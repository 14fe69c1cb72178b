"""What finished runs came to, in one file that is kept with the sources.

A run's own file has its whole curve, and lies where it was run. The ledger has a line for each run:
another machine goes on from it, and the report is made from it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks.learning.run import Run
from tests.benchmarks.learning.scores import outcome
from tests.benchmarks.learning.tasks import TASKS

Entry = dict[str, Any]


def entry_of(record: dict[str, Any]) -> Entry:
    """Sums a run's record up.

    Args:
        record: `run` and `curve`, as in a run's own file.

    Returns:
        `run` (its fields) and `outcome`, as `scores.outcome` has it.

    Raises:
        ValueError: If there is no such task any more.
    """
    run = record["run"]
    if run["task"] not in TASKS:
        raise ValueError(
            f"Expected a run of a task of the benchmark, got one of {run['task']!r}. Fix: move "
            f"{Run(**run).name}.json out of the folder."
        )
    summary = outcome(record["curve"], run["budget"], TASKS[run["task"]].bar)
    return {"run": run, "outcome": summary}


def name_of(entry: Entry) -> str:
    """Returns the name of an entry's run."""
    return Run(**entry["run"]).name


def is_known(run: Run, entries: Iterable[Entry]) -> bool:
    """Says whether a run is in a ledger.

    Args:
        run: The run.
        entries: The ledger's.

    Raises:
        ValueError: If a run of that name, but of other options, is.
    """
    for entry in entries:
        if name_of(entry) == run.name:
            known = Run(**entry["run"])
            if (known.fields, known.training) != (run.fields, run.training):
                raise ValueError(
                    f"The ledger has {run.name} with {known.fields} and {known.training}, but got "
                    f"{run.fields} and {run.training}. Give other options a `--label` of their own."
                )
            return True
    return False


def read_folder(folder: Path) -> list[Entry]:
    """Reads the runs that have files of their own.

    Args:
        folder: Where runs write their files.
    """
    return [entry_of(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def read_ledger(path: Path | None) -> list[Entry]:
    """Reads a ledger.

    Args:
        path: Its file; None, or one that does not exist, has no entries.
    """
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_ledger(path: Path, entries: Iterable[Entry]) -> None:
    """Writes a ledger, a line for each run, in the order of their names.

    Args:
        path: Its file.
        entries: All entries; of several with one name the last counts.
    """
    named = {name_of(entry): entry for entry in entries}
    lines = [json.dumps(_rounded(named[name])) + "\n" for name in sorted(named)]
    path.write_text("".join(lines))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
