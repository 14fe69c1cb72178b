"""The run loop of the example scripts: build, train, report, save."""

import argparse
import csv
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from common.cli import EXTRA_HINT
from common.models import set_model
from common.plots import plot_curve
from common.runtime import StopRequest, start_ray

AtEnd = Callable[[Algorithm, Path], None]


@dataclass
class Run:
    """One training run: where it writes, what it reads from each result, what it has seen.

    Attributes:
        args: The parsed command line.
        results_dir: Folder for all files of the run.
        return_key: Path of the metric that counts as the return within a training result.
        steps_key: Path of the step counter that the budget applies to.
        extra: Further columns for `progress.csv`: name to path within the result.
        rows: One row per iteration.
        started: Time at which training began.
        started_cpu: This process's CPU time at that moment.
    """

    args: argparse.Namespace
    results_dir: Path
    return_key: str = "env_runners/episode_return_mean"
    steps_key: str = "num_env_steps_sampled_lifetime"
    extra: Mapping[str, str] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    started_cpu: float = field(default_factory=time.process_time)

    @property
    def reached(self) -> bool:
        """Whether the latest mean return is at the bar or above it."""
        bar = self.args.stop_reward
        return bar is not None and bool(self.rows) and self.rows[-1]["return"] >= bar

    @property
    def finished(self) -> bool:
        """Whether the bar, the step budget or the iteration limit has been reached."""
        if not self.rows:
            return False
        limit = self.args.stop_iters or math.inf
        spent = self.rows[-1]["env_steps"] >= self.args.stop_timesteps
        return self.reached or spent or len(self.rows) >= limit


def run_example(
    config: AlgorithmConfig, args: argparse.Namespace, *, at_end: AtEnd | None = None, **keys: Any
) -> None:
    """Adds the command line's choices to the config and runs it; see `run_config`.

    Args:
        config: Algorithm, task and hyperparameters.
        args: The parsed command line.
        at_end: Called with the trained algorithm and the results folder, unless interrupted.
        **keys: `return_key`, `steps_key` and `extra` of `Run`.
    """
    config.env_runners(
        num_env_runners=args.num_env_runners, num_envs_per_env_runner=args.num_envs_per_env_runner
    )
    config.learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
    config.debugging(seed=args.seed, log_level="WARN" if args.verbose else "ERROR")
    run_config(set_model(config, args), args, at_end=at_end, **keys)


def run_config(
    config: AlgorithmConfig, args: argparse.Namespace, *, at_end: AtEnd | None = None, **keys: Any
) -> None:
    """Trains a complete config, then saves, plots and prints the closing line.

    Args:
        config: The config to build, with nothing left to add.
        args: The parsed command line.
        at_end: Called with the trained algorithm and the results folder, unless interrupted.
        **keys: `return_key`, `steps_key` and `extra` of `Run`.

    Raises:
        SystemExit: With code 1 if `--as-test` is given and the bar was not reached, with code 130
            after Ctrl-C.
    """
    with StopRequest() as stop:
        run = Run(args, make_results_dir(args), **keys)
        start_ray(args)
        algo = _build(config, args.restore)
        try:
            _train(algo, run, stop)
            _finish(algo, run, None if stop.asked else at_end, stop)
        finally:
            algo.stop()
            ray.shutdown()
    print(closing_line(run), flush=True)
    if stop.asked:
        sys.exit(130)
    if args.as_test and not run.reached:
        sys.exit(1)


def make_results_dir(args: argparse.Namespace) -> Path:
    """Creates the folder for this run's files and notes the settings in it.

    Args:
        args: The parsed command line.

    Returns:
        The folder, as an absolute path.

    Raises:
        SystemExit: If the folder already holds a run.
    """
    name = f"{Path(sys.argv[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(args.results_dir or Path("results") / name).absolute()
    if (folder / "progress.csv").exists():
        sys.exit(f"--results-dir: {folder} already holds a run; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.json").write_text(json.dumps(vars(args), indent=2, default=str) + "\n")
    if find_spec("matplotlib") is None:
        print(f"no learning curve will be drawn, matplotlib is missing: {EXTRA_HINT}")
    return folder


def _build(config: AlgorithmConfig, checkpoint: str | None) -> Algorithm:
    """Builds the algorithm, in the state of a checkpoint if one is given."""
    algo = config.build_algo()
    if checkpoint:
        new_stack = config.enable_rl_module_and_learner
        restore = algo.restore_from_path if new_stack else algo.restore
        restore(str(Path(checkpoint).absolute()))
    return algo


def _train(algo: Algorithm, run: Run, stop: StopRequest) -> None:
    """Trains until the run is finished or a stop is asked for."""
    run.started, run.started_cpu = time.perf_counter(), time.process_time()
    try:
        while not run.finished and not stop.asked:
            record_iteration(run, algo.train())
            every = run.args.checkpoint_every
            if every and len(run.rows) % every == 0:
                save_checkpoint(algo, run.results_dir)
    except KeyboardInterrupt:
        pass  # The second Ctrl-C: what has been learned so far is saved all the same.
    finally:
        stop.saving = True  # From here on no signal may come between us and the checkpoint.


def record_iteration(run: Run, result: Mapping[str, Any]) -> None:
    """Adds one iteration to the rows and to `progress.csv`, and prints its progress line.

    Args:
        run: The run to add to.
        result: What `Algorithm.train` returned.
    """
    before = run.rows[-1] if run.rows else {"seconds": 0.0, "env_steps": 0}
    row = {
        "iteration": result["training_iteration"],
        "env_steps": int(metric(result, run.steps_key, default=0)),
        "seconds": round(time.perf_counter() - run.started, 2),
        # Without the time that other processes took away: what to compare models by.
        "cpu_seconds": round(time.process_time() - run.started_cpu, 2),
        "return": metric(result, run.return_key),
    }
    # After `--restore` the counter starts high: the first iteration has no speed to show.
    steps = row["env_steps"] - before["env_steps"] if run.rows or not run.args.restore else 0
    row["steps_per_second"] = round(steps / max(row["seconds"] - before["seconds"], 1e-6), 1)
    row |= {name: metric(result, key) for name, key in run.extra.items()}
    run.rows.append(row)
    _append_csv(run.results_dir / "progress.csv", row)
    print(progress_line(run), flush=True)


def metric(result: Mapping[str, Any], key: str, default: float = math.nan) -> float:
    """Looks up a nested metric.

    Args:
        result: A training result.
        key: Names along the path, joined by `/`.
        default: Value for a metric that is not there (yet).

    Returns:
        The metric as a number.
    """
    value: Any = result
    for name in key.split("/"):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return default if value is None else float(value)


def _append_csv(path: Path, row: Mapping[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def progress_line(run: Run) -> str:
    """Describes the latest iteration in one line.

    Args:
        run: A run with at least one row.

    Returns:
        Return, steps, speed and the time that the rest of the step budget would take.
    """
    row, budget = run.rows[-1], run.args.stop_timesteps
    speed = row["steps_per_second"]
    left = max(budget - row["env_steps"], 0) / speed if speed else math.inf
    extra = "".join(f"  {name} {row[name]:.3f}" for name in run.extra)
    return (
        f"iter {row['iteration']:>4.0f}  return {row['return']:8.3f}{extra}  "
        f"env_steps {row['env_steps']:>9,}/{budget:,}  {speed:7,.0f} steps/s  "
        f"left {_duration(left)}"
    )


def _duration(seconds: float) -> str:
    if math.isinf(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s"


def _finish(algo: Algorithm, run: Run, at_end: AtEnd | None, stop: StopRequest) -> None:
    """Saves and plots what the run has produced, and lists the files."""
    if run.args.checkpoint_at_end or stop.asked:
        print(f"checkpoint: {save_checkpoint(algo, run.results_dir)}", flush=True)
    if run.rows and find_spec("matplotlib") is not None:
        title = f"{Path(sys.argv[0]).stem} ({run.args.model})"
        path = run.results_dir / "learning_curve.png"
        plot_curve(run.rows, path, title=title, bar=run.args.stop_reward)
    stop.saving = False
    if at_end is not None:
        at_end(algo, run.results_dir)
    print(f"results in {run.results_dir}:")
    for entry in sorted(run.results_dir.iterdir()):
        print(f"  {entry.name}{'/' if entry.is_dir() else ''}")


def save_checkpoint(algo: Algorithm, results_dir: Path) -> Path:
    """Saves the algorithm, replacing the run's former checkpoint only when all is written.

    Args:
        algo: The algorithm to save.
        results_dir: Folder of the run.

    Returns:
        The checkpoint folder.
    """
    final, partial = results_dir / "checkpoint", results_dir / "checkpoint.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if algo.config.enable_rl_module_and_learner:
        algo.save_to_path(str(partial))
    else:
        algo.save(str(partial))
    shutil.rmtree(final, ignore_errors=True)
    return partial.rename(final)


def closing_line(run: Run) -> str:
    """Sums the run up in the one line that each example ends with.

    Args:
        run: The finished run.

    Returns:
        Return, environment steps, seconds, and whether the bar was reached (if there is one).
    """
    last = run.rows[-1] if run.rows else {"return": math.nan, "env_steps": 0, "seconds": 0.0}
    return summary_line(
        last["return"], last["env_steps"], last["seconds"], bar=run.args.stop_reward
    )


def summary_line(value: float, env_steps: float, seconds: float, *, bar: float | None) -> str:
    """Formats a closing line.

    Args:
        value: The mean return.
        env_steps: Environment steps taken.
        seconds: Time that training took.
        bar: The return to reach, if there is one.

    Returns:
        The line.
    """
    line = f"return={value:.3f}  env_steps={env_steps:.0f}  seconds={seconds:.1f}"
    if bar is None:
        return line
    return f"{line}  bar={bar:g} {'reached' if value >= bar else 'not reached'}"
