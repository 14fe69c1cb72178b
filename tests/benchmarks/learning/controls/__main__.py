"""Attention against RLlib's own models: the same tasks, width and budget, over several seeds.

The runs are those of the tuned examples, each in a process of its own, with attention, RLlib's
LSTM, RLlib's GTrXL (old API stack) and RLlib's MLP (no memory).

How to run this script
----------------------
`python -m tests.benchmarks.learning.controls --results-dir=results/controls`

Needs `pip install -e ".[test]"`. When it is started again, it goes on where it stopped: finished
runs are not repeated. `--tasks`, `--models` and `--seeds` choose what is run, `--dry-run` prints
the commands only, `--report-only` reads what is there.

Results to expect
-----------------
A report: environment steps and CPU seconds to the bar over seeds, the success rate in the T-maze
against the length of its corridor, and one plot per task. `docs/controls.md` is one.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.learning.controls.models import MODELS
from tests.benchmarks.learning.controls.one_run import command_of
from tests.benchmarks.learning.controls.process import run_once
from tests.benchmarks.learning.controls.report import report
from tests.benchmarks.learning.controls.tasks import TASKS


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results-dir", default="results/controls", help="folder of all runs")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--report-only", action="store_true", help="run nothing, write the report")
    return parser.parse_args(arguments)


def main() -> None:
    """Runs what is missing, then writes the report."""
    args = parse_args()
    results = Path(args.results_dir)
    # Seeds come first: after one pass there is one run of everything to look at.
    wanted = [
        (task, model, seed)
        for seed in args.seeds
        for model in args.models
        for task in args.tasks
        if model in TASKS[task].models
    ]
    for task, model, seed in wanted:
        folder = (results / f"{task}-{model}-{seed}").absolute()
        command = command_of(task, model, seed, folder)
        if args.dry_run:
            print(f"python {shlex.join(command)}")
        elif not args.report_only:
            run_once(command, folder)
    if args.dry_run:
        return
    path = report(results)
    print(path.read_text() if path else "no run is finished yet")


if __name__ == "__main__":
    main()
