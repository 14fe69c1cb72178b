"""Attention against RLlib's own models: the same tasks, width and budget, over several seeds.

This example:
    - runs the tuned examples as a user would, each in a process of its own, with attention, RLlib's
      LSTM, RLlib's GTrXL (old API stack) and RLlib's MLP (no memory).
    - goes on where it stopped when it is started again: finished runs are not repeated.
    - writes a report: environment steps and CPU seconds to the bar over seeds, the success rate in
      the T-maze against the length of its corridor, and one plot per task.

How to run this script
----------------------
`python controls.py --results-dir=results/controls`

Needs `pip install "rllib-attention[examples]"`. `--tasks`, `--models` and `--seeds` choose what is
run, `--dry-run` prints the commands only, `--report-only` reads what is there.

Results to expect
-----------------
See `docs/controls.md` for a report made by this script.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from common.outcomes import Outcome, closing_line_of, read_outcome
from common.plots import plot_bands, plot_success
from common.report import (
    MODEL_NAMES,
    group,
    success_by_length,
    success_table,
    task_table,
    write_json,
)

HERE = Path(__file__).parent
PREAMBLE = """# Attention against RLlib's own models

Made by `python tuned_examples/controls.py`, which runs the tuned examples, each in a process of its
own with one thread, and can be stopped and started again.

- Numbers are means over seeds ± their standard deviation.
- All models have width 64, the same chunk length, and the same options of PPO. Attention and GTrXL
  have the same layers, heads and window (2 layers and 16 steps; in the T-maze 1 layer, and a window
  that reaches the cue). In the T-maze a training chunk holds a whole episode for all models.
- A run ends when the mean return of the last 100 episodes is at the bar, or its budget is spent.
- "Against attention" compares environment steps taken; `>` means that a run missed the bar, and
  counts with its budget.
- The options of PPO were chosen by hand on runs of attention with seed 0; RLlib's models had no
  tuning of their own.
- CPU seconds are those of training in the one process that samples and learns. They depend on what
  else the machine does (caches, clocks): compare them only where all runs had the same company."""
# The flag that chooses each model in the scripts.
FLAGS = {"mlp": ["--no-attention"], "lstm": ["--lstm"], "gtrxl": ["--gtrxl"], "attention": []}
# One process, so that seconds compare models and not how they share cores.
SHARED = ["--num-env-runners=0", "--num-envs-per-env-runner=16", "--no-checkpoint-at-end"]


@dataclass(frozen=True)
class Task:
    """A task of the comparison.

    Attributes:
        title: What the report calls it.
        script: The tuned example to run.
        bar: The mean return to reach.
        budget: Environment steps after which a run is given up.
        options: Further options of the script.
    """

    title: str
    script: str
    bar: float
    budget: int
    options: tuple[str, ...] = ()


T_MAZE_PLOT = "controls_t_maze.png"
CORRIDORS = {length: f"t_maze_{length}" for length in (10, 30, 100)}
TASKS = {
    "repeat_previous": Task(
        "RepeatPrevious, easy", "ppo_repeat_previous.py", bar=0.9, budget=150_000
    ),
    "stateless_cartpole": Task(
        "CartPole without velocities", "ppo_stateless_cartpole.py", bar=350.0, budget=200_000
    ),
    **{
        name: Task(
            f"T-maze, corridor of {length}",
            "ppo_t_maze.py",
            bar=0.9,
            budget=100_000,
            options=(f"--corridor-length={length}",),
        )
        for length, name in CORRIDORS.items()
    },
}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=list(FLAGS), default=list(FLAGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results-dir", default="results/controls", help="folder of all runs")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--report-only", action="store_true", help="run nothing, write the report")
    return parser.parse_args(arguments)


def run_folder(results: Path, task: str, model: str, seed: int) -> Path:
    """Returns the folder of one run."""
    return results / f"{task}-{model}-{seed}"


def command_of(task: str, model: str, seed: int, folder: Path) -> list[str]:
    """Returns the command line of one run, without the interpreter.

    Args:
        task: Name of the task.
        model: Name of the model.
        seed: The seed.
        folder: Where the run writes.
    """
    entry = TASKS[task]
    return [
        entry.script,
        *entry.options,
        *FLAGS[model],
        *SHARED,
        f"--seed={seed}",
        f"--stop-reward={entry.bar:g}",
        f"--stop-timesteps={entry.budget}",
        f"--results-dir={folder}",
    ]


def run(task: str, model: str, seed: int, results: Path) -> None:
    """Runs one script to its end, unless it has got there before.

    Args:
        task: Name of the task.
        model: Name of the model.
        seed: The seed.
        results: Folder of all runs.

    Raises:
        SystemExit: If the script fails or is interrupted.
    """
    folder = run_folder(results, task, model, seed)
    if closing_line_of(folder / "log.txt"):
        return
    shutil.rmtree(folder, ignore_errors=True)  # A run that was cut short is of no use.
    folder.mkdir(parents=True)
    command = command_of(task, model, seed, folder.absolute())
    print(f"python {shlex.join(command)}", flush=True)
    with (folder / "log.txt").open("w") as log:
        code = subprocess.call(
            [sys.executable, str(HERE / command[0]), *command[1:]],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    line = closing_line_of(folder / "log.txt")
    if code or not line:
        (folder / "log.txt").rename(folder / "failed.txt")
        sys.exit(f"the run failed with code {code}: {folder / 'failed.txt'}")
    print(f"  {line[0]}", flush=True)


def collect(results: Path) -> list[Outcome]:
    """Reads all finished runs below a folder, whichever seeds they have."""
    outcomes = []
    for folder in sorted(results.glob("*-*-*")):
        task, model, seed = folder.name.rsplit("-", 2)
        if task in TASKS and model in FLAGS and seed.isdecimal():
            outcomes.append(read_outcome(folder, task, model, int(seed)))
    return [outcome for outcome in outcomes if outcome is not None]


def report(results: Path) -> Path | None:
    """Writes tables, plots and raw numbers of all finished runs.

    Args:
        results: Folder of all runs.

    Returns:
        The Markdown file, or None if no run is finished.
    """
    outcomes = collect(results)
    if not outcomes:
        return None
    write_json(outcomes, results / "controls.json")
    sections = [_section(name, outcomes, results) for name in TASKS]
    mazes = {n: name for n, name in CORRIDORS.items() if any(o.task == name for o in outcomes)}
    if mazes:
        sections.append(_maze_section(mazes, outcomes, results))
    path = results / "controls.md"
    path.write_text("\n\n".join([PREAMBLE, *filter(None, sections)]) + "\n")
    return path


def _section(name: str, outcomes: Sequence[Outcome], results: Path) -> str:
    """Returns the part of the report about one task."""
    own = [outcome for outcome in outcomes if outcome.task == name]
    if not own:
        return ""
    task = TASKS[name]
    lines = [f"## {task.title}", "", f"Bar: a mean return of {task.bar:g}.", ""]
    lines += [task_table(name, own), ""]
    folder = Path("results/controls") / f"{name}-lstm-0"
    command = shlex.join(command_of(name, "lstm", 0, folder))
    lines.append(f"One of the runs (LSTM, seed 0): `python {command}`")
    if find_spec("matplotlib") is not None:
        groups = group(own)
        # In one order, so that a model has the same colour in all plots.
        curves = {
            title: [outcome.curve for outcome in groups[name, model]]
            for model, title in MODEL_NAMES.items()
            if (name, model) in groups
        }
        plot_bands(curves, results / f"controls_{name}.png", title=task.title, bar=task.bar)
        lines += ["", f"![Return over environment steps](controls_{name}.png)"]
    return "\n".join(lines)


def _maze_section(mazes: dict[int, str], outcomes: Sequence[Outcome], results: Path) -> str:
    """Returns the part of the report about success against corridor length."""
    lines = ["## T-maze: success against the length of the corridor", ""]
    lines.append(success_table(mazes, outcomes))
    if find_spec("matplotlib") is not None:
        title = "T-maze: success at the end of training"
        plot_success(success_by_length(mazes, outcomes), results / T_MAZE_PLOT, title=title)
        lines += ["", f"![Success against corridor length]({T_MAZE_PLOT})"]
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing, then writes the report."""
    args = parse_args()
    results = Path(args.results_dir)
    # Seeds come last: after the first pass there is one run of everything to look at.
    wanted = [(t, m, s) for s in args.seeds for m in args.models for t in args.tasks]
    for task, model, seed in wanted:
        if args.dry_run:
            folder = run_folder(results, task, model, seed)
            print(f"python {shlex.join(command_of(task, model, seed, folder))}")
        elif not args.report_only:
            run(task, model, seed, results)
    if args.dry_run:
        return
    path = report(results)
    print(path.read_text() if path else "no run is finished yet")


if __name__ == "__main__":
    main()
