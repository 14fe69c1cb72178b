"""Trains one model on one task: `python -m tests.benchmarks.learning.controls.one_run --help`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import run_example

from tests.benchmarks.learning.controls.models import MODELS
from tests.benchmarks.learning.controls.tasks import TASKS

MODULE = "tests.benchmarks.learning.controls.one_run"


def command_of(task: str, model: str, seed: int, folder: Path) -> list[str]:
    """Returns the command line of one run, without the interpreter.

    Args:
        task: Key of `TASKS`.
        model: Key of `MODELS`.
        seed: The seed.
        folder: Where the run writes.
    """
    options = [f"--task={task}", f"--model={model}", f"--seed={seed}", f"--results-dir={folder}"]
    return ["-m", MODULE, *options]


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--model", choices=list(MODELS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--stop-timesteps", type=int, help="budget (unset: the task's own)")
    parser.add_argument("--as-test", action="store_true", help="fail if the bar is not reached")
    return parser.parse_args(arguments)


def main() -> None:
    """Trains, and prints the closing line."""
    options = parse_args()
    task = TASKS[options.task]
    args = task.args(seed=options.seed, folder=options.results_dir)
    args.as_test = options.as_test
    args.stop_timesteps = options.stop_timesteps or task.budget
    run_example(task.config(options.model, args), args)


if __name__ == "__main__":
    main()
