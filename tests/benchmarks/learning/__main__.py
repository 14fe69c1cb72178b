"""Trains attention and RLlib's own models on many tasks, and writes a report.

How to run this script
----------------------
`python -m tests.benchmarks.learning --out results/learning --processes 2`

Finished runs are kept: start it again and it goes on. `--tasks`, `--models`, `--seeds` and
`--budget` choose what is run, `--fields '{"dropout": 0.1}' --label dropout` tries other options of
attention, `--report-only` reads what is there. `--ledger docs/learning_benchmark.jsonl` skips the
runs that this file tells of, and adds the new ones to it; with `--report-only --report
docs/learning_benchmark.md` its report is written.

Needs `pip install "rllib-attention[examples]"`; the labyrinths also need
`pip install mazelib cython`, the MuJoCo tasks `pip install mujoco imageio`.

Results to expect
-----------------
One JSON file per run and `report.md` in the output folder. A run of 200,000 steps takes two to
five minutes on one core; `docs/learning.md` discusses results.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.learning.ledger import (
    Entry,
    is_known,
    read_folder,
    read_ledger,
    write_ledger,
)
from tests.benchmarks.learning.models import ALL_MODELS, MODELS
from tests.benchmarks.learning.one_run import run_one
from tests.benchmarks.learning.report import render
from tests.benchmarks.learning.run import Run
from tests.benchmarks.learning.tasks import TASKS


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line.

    Args:
        arguments: None for the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("results/learning"))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=ALL_MODELS, default=list(ALL_MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=200_000, help="env steps of a PPO run")
    parser.add_argument("--replay-budget", type=int, default=20_000, help="the same, SAC and DQN")
    parser.add_argument("--fields", type=json.loads, default={}, help="AttentionConfig, as JSON")
    parser.add_argument("--training", type=json.loads, default={}, help="config.training, as JSON")
    parser.add_argument("--label", default="", help="what the report calls attention")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--ledger", type=Path, help="outcomes of earlier runs, and of these")
    parser.add_argument("--report", type=Path, help="the report's file; report.md in `--out`")
    parser.add_argument("--report-only", action="store_true")
    return parser.parse_args(arguments)


def runs_of(args: argparse.Namespace) -> list[dict]:
    """Returns the fields of each `Run` that the command line asks for, seed by seed.

    Args:
        args: The parsed command line.
    """
    runs = []
    for seed in args.seeds:
        for name in args.tasks:
            task = TASKS[name]
            replayed = task.algorithm != "ppo"
            for model in args.models:
                if model not in MODELS[task.algorithm]:
                    continue
                own = {"label": args.label, "fields": args.fields} if model == "attention" else {}
                budget = args.replay_budget if replayed else args.budget
                common = {"budget": budget, "training": args.training}
                runs.append({"task": name, "model": model, "seed": seed} | common | own)
    return runs


def run_missing(args: argparse.Namespace, entries: list[Entry]) -> list[bool]:
    """Runs what is asked for and not known, each run in a process of its own.

    Args:
        args: The parsed command line.
        entries: Of runs that are not run again.

    Returns:
        Whether each run ended well.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a new process imports torch
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    jobs = [(fields, args.out) for fields in runs_of(args) if not is_known(Run(**fields), entries)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.processes, maxtasksperchild=1) as pool:
        done = pool.starmap(run_one, jobs, chunksize=1)
        pool.close()
        pool.join()
    return done


def main() -> None:
    """Runs what is missing, then writes the report; exits with code 1 if a run failed."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    entries = read_ledger(args.ledger)
    done = [] if args.report_only else run_missing(args, entries)
    entries += read_folder(args.out)
    if args.ledger:
        write_ledger(args.ledger, entries)
        entries = read_ledger(args.ledger)  # rounded: the report is that of the file
    report = render(entries)
    (args.report or args.out / "report.md").write_text(report)
    print(report)
    if not all(done):
        sys.exit(f"{done.count(False)} of {len(done)} runs failed: see above")


if __name__ == "__main__":
    main()
