"""The report of all finished runs: tables, plots, and the commands that made them."""

import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.learning.controls.models import MODELS
from tests.benchmarks.learning.controls.one_run import command_of
from tests.benchmarks.learning.controls.outcomes import Outcome, read_outcome
from tests.benchmarks.learning.controls.plots import plot_bands, plot_success
from tests.benchmarks.learning.controls.tables import (
    MODEL_NAMES,
    group,
    success_by_length,
    success_table,
    task_table,
    write_json,
)
from tests.benchmarks.learning.controls.tasks import CORRIDORS, TASKS

PREAMBLE = """# Attention against RLlib's own models

Made by `python -m tests.benchmarks.learning.controls`, which trains on the tuned examples, each run
in a process of its own with one thread, and can be stopped and started again.

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
T_MAZE_PLOT = "controls_t_maze.png"


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


def collect(results: Path) -> list[Outcome]:
    """Reads all finished runs below a folder, whichever seeds they have."""
    outcomes = []
    for folder in sorted(results.glob("*-*-*")):
        task, model, seed = folder.name.rsplit("-", 2)
        if task in TASKS and model in MODELS and seed.isdecimal():
            outcomes.append(read_outcome(folder, task, model, int(seed)))
    return [outcome for outcome in outcomes if outcome is not None]


def _section(name: str, outcomes: Sequence[Outcome], results: Path) -> str:
    """Returns the part of the report about one task."""
    own = [outcome for outcome in outcomes if outcome.task == name]
    if not own:
        return ""
    task = TASKS[name]
    lines = [f"## {task.title}", "", f"Bar: a mean return of {task.bar:g}.", ""]
    lines += [task_table(name, own), ""]
    command = command_of(name, "lstm", 0, Path("results/controls") / f"{name}-lstm-0")
    lines.append(f"One of the runs (LSTM, seed 0): `python {shlex.join(command)}`")
    if find_spec("matplotlib") is not None:
        groups = group(own)
        # In one order, so that a model has the same colour in all plots.
        curves = {
            title: [outcome.curve for outcome in groups[name, model]]
            for model, title in MODEL_NAMES.items()
            if (name, model) in groups
        }
        plot = f"controls_{name}.png"
        plot_bands(curves, results / plot, title=task.title, bar=task.bar)
        lines += ["", f"![Return over environment steps]({plot})"]
    return "\n".join(lines)


def _maze_section(mazes: Mapping[int, str], outcomes: Sequence[Outcome], results: Path) -> str:
    """Returns the part of the report about success against corridor length."""
    lines = ["## T-maze: success against the length of the corridor", ""]
    lines.append(success_table(mazes, outcomes))
    if find_spec("matplotlib") is not None:
        title = "T-maze: success at the end of training"
        plot_success(success_by_length(mazes, outcomes), results / T_MAZE_PLOT, title=title)
        lines += ["", f"![Success against corridor length]({T_MAZE_PLOT})"]
    return "\n".join(lines)
