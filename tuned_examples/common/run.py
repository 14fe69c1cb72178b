"""The loop of the example scripts: build, train, save, plot, and one closing line."""

import argparse
import csv
import json
import logging
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from common.plots import plot_curves

RETURN = "env_runners/episode_return_mean"
STEPS = "num_env_steps_sampled_lifetime"


def run_example(
    config: AlgorithmConfig,
    args: argparse.Namespace,
    *,
    return_key: str = RETURN,
    steps_key: str = STEPS,
    at_end: Callable[[Algorithm, Path], None] | None = None,
    **extra: str,
) -> None:
    """Trains until the bar, the budget or Ctrl-C, then saves, plots and prints the closing line.

    Args:
        config: The complete config.
        args: The parsed command line.
        return_key: Where the return stands in a training result.
        steps_key: Where the steps stand that the budget counts.
        at_end: Called with the trained algorithm and the results folder, unless interrupted.
        **extra: Further columns of `progress.csv`, and where each stands in a training result.

    Raises:
        SystemExit: With code 1 if `--as-test` is given and the bar was not reached, with code 130
            after Ctrl-C.
    """
    folder = make_results_dir(args)
    start_ray(args)
    algo = _build(config, args)
    stop = _stop_on_signals()
    columns = {"iteration": "training_iteration", "env_steps": steps_key, "return": return_key}
    rows: list[dict[str, float]] = []
    began, began_cpu = time.perf_counter(), time.process_time()
    while not (stop.is_set() or (rows and is_finished(rows[-1], len(rows), args))):
        result = algo.train()
        row = {name: metric(result, key) for name, key in (columns | extra).items()}
        row["seconds"] = round(time.perf_counter() - began, 2)
        # Without the time that other processes took away: what to compare models by.
        row["cpu_seconds"] = round(time.process_time() - began_cpu, 2)
        rows.append(row)
        _show(row, folder / "progress.csv")
    print(f"checkpoint: {_save(algo, folder / 'checkpoint')}", flush=True)
    curve = [(row["env_steps"], row["return"]) for row in rows]
    plot_curves({"return": curve}, folder / "learning_curve.png", bar=args.stop_reward)
    if at_end and not stop.is_set():
        at_end(algo, folder)
    algo.stop()
    ray.shutdown()
    print(f"results in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    last = rows[-1] if rows else {"return": math.nan, "env_steps": 0, "seconds": 0}
    print(closing_line(last["return"], last["env_steps"], last["seconds"], bar=args.stop_reward))
    if stop.is_set():
        sys.exit(130)
    if args.as_test and not last["return"] >= args.stop_reward:
        sys.exit(1)


def make_results_dir(args: argparse.Namespace) -> Path:
    """Creates the folder for the run's files, and notes the command line in it.

    Args:
        args: The parsed command line; its `results_dir` becomes the folder's absolute path.

    Raises:
        SystemExit: If the folder already holds a run.
    """
    name = f"{Path(sys.argv[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(args.results_dir or Path("results") / name).absolute()
    if (folder / "progress.csv").exists():
        sys.exit(f"--results-dir: {folder} already holds a run; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    args.results_dir = str(folder)
    (folder / "args.json").write_text(json.dumps(vars(args), indent=2) + "\n")
    return folder


def start_ray(args: argparse.Namespace) -> None:
    """Connects to the cluster named by `RAY_ADDRESS`, or starts Ray on this machine.

    Args:
        args: The parsed command line; without `verbose` Ray and its workers show errors only.
    """
    level = logging.WARNING if args.verbose else logging.ERROR
    options: dict[str, Any] = {"ignore_reinit_error": True, "log_to_driver": args.verbose}
    if not args.verbose:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        warnings.simplefilter("ignore")
    for name in ("ray.rllib", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(level)
    if "RAY_ADDRESS" not in os.environ:
        # On a small machine Ray would wait for ever for more CPUs than there are.
        wanted = args.num_env_runners + args.num_learners + 2
        options |= {"num_cpus": max(os.cpu_count() or 1, wanted), "include_dashboard": False}
    ray.init(logging_level=level, **options)


def is_finished(row: Mapping[str, float], iterations: int, args: argparse.Namespace) -> bool:
    """Says whether a run is at its bar, its budget of steps, or its limit of iterations."""
    spent = row["env_steps"] >= args.stop_timesteps or iterations == args.stop_iters
    return spent or row["return"] >= args.stop_reward


def metric(result: Mapping[str, Any], key: str) -> float:
    """Looks up a metric by its path (`env_runners/num_episodes`); NaN if it is not there (yet)."""
    value: Any = result
    for name in key.split("/"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return math.nan if value is None else float(value)


def closing_line(value: float, env_steps: float, seconds: float, *, bar: float) -> str:
    """Returns the line that each example ends with: return, steps, seconds, bar."""
    line = f"return={value:.3f}  env_steps={env_steps:.0f}  seconds={seconds:.1f}"
    return f"{line}  bar={bar:g} {'reached' if value >= bar else 'not reached'}"


def _build(config: AlgorithmConfig, args: argparse.Namespace) -> Algorithm:
    """Builds the algorithm, in the state of a checkpoint if one is given."""
    algo = config.debugging(log_level="WARN" if args.verbose else "ERROR").build_algo()
    if args.restore:
        new_stack = config.enable_rl_module_and_learner
        restore = algo.restore_from_path if new_stack else algo.restore
        restore(str(Path(args.restore).absolute()))
    return algo


def _stop_on_signals() -> threading.Event:
    """Turns the first Ctrl-C (or SIGTERM) into a request that the loop looks at."""
    stop = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("stopping after this iteration, then saving (Ctrl-C again: at once)", flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def _show(row: Mapping[str, float], progress: Path) -> None:
    """Prints a row and adds it to `progress.csv`."""
    new = not progress.exists()
    with progress.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    cells = [f"{name} {value:,.3f}".removesuffix(".000") for name, value in row.items()]
    print("  ".join(cells), flush=True)


def _save(algo: Algorithm, folder: Path) -> Path:
    """Saves the algorithm into a folder."""
    new_stack = algo.config.enable_rl_module_and_learner
    (algo.save_to_path if new_stack else algo.save)(str(folder))
    return folder
