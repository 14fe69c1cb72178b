"""One run: a task, a model, a seed, a budget; one JSON file when it is done."""

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from tests.benchmarks.learning.models import make_config
from tests.benchmarks.learning.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is run.

    Attributes:
        task: One of `TASKS`.
        model: One of `MODELS`.
        seed: Seed of environments, weights and batches.
        budget: Env steps after which the run ends.
        label: What the report calls the model; "" for its name.
        fields: Fields of `AttentionConfig` that differ from their defaults.
        training: Options of `config.training` that differ from the benchmark's.
    """

    task: str
    model: str
    seed: int = 0
    budget: int = 200_000
    label: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The stem of the run's file."""
        return f"{self.task}-{self.label or self.model}-{self.seed}-{self.budget}"


def make_run_config(run: Run) -> AlgorithmConfig:
    """Returns the config of a run."""
    # The options of training first: chunk lengths follow from minibatches.
    return make_config(run.task, run.model, run.seed, run.fields, run.training)


def execute(run: Run, folder: Path) -> dict[str, Any]:
    """Runs, unless its file is there already.

    Args:
        run: What to run.
        folder: Where the file goes.

    Returns:
        The record: `run`, and `curve`, rows of env steps, CPU seconds and mean return.
    """
    path = folder / f"{run.name}.json"
    if path.exists():
        return json.loads(path.read_text())
    algo = make_run_config(run).build_algo()
    try:
        curve = train(algo, run.budget)
    finally:
        algo.stop()
    record = {"run": dataclasses.asdict(run) | {"label": run.label or run.model}, "curve": curve}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record) + "\n")
    partial.rename(path)
    return record


def train(algo: Algorithm, budget: int) -> list[dict[str, float]]:
    """Trains until the budget is spent.

    Args:
        algo: A built algorithm, sampling and learning in this process.
        budget: Env steps.

    Returns:
        A row per iteration: `steps`, `cpu` (seconds of this process) and `value` (mean return of
        the latest 100 episodes, NaN before the first one ends).
    """
    rows: list[dict[str, float]] = []
    start = time.process_time()
    while not rows or rows[-1]["steps"] < budget:
        result = algo.train()
        runners = result["env_runners"]
        steps = result.get("num_env_steps_sampled_lifetime", 0)
        rows.append(
            {
                "steps": int(steps),
                "cpu": round(time.process_time() - start, 2),
                "value": float(runners.get("episode_return_mean", math.nan)),
            }
        )
    return rows


def bar_of(run: Run) -> float:
    """Returns the return whose cost is reported."""
    return TASKS[run.task].bar
