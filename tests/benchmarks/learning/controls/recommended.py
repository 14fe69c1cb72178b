"""What the settings that the README recommends are worth, beside PPO's defaults.

How to run this script
----------------------
`python -m tests.benchmarks.learning.controls.recommended --results-dir=results/recommended`

Needs `pip install -e ".[test]"`. It goes on where it stopped. PPO's defaults update the weights 930
times an iteration: expect 10 to 15 minutes for each run of theirs that misses its bar.

Results to expect
-----------------
A table of environment steps and CPU seconds to the bar; see `docs/settings.md`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import run_example
from common.envs import TMaze, make_repeat_previous, make_stateless_cartpole
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations

from rllib_attention import AttentionConfig, use_attention
from tests.benchmarks.learning.controls.outcomes import Outcome, read_outcome, summarize
from tests.benchmarks.learning.controls.process import run_once
from tests.benchmarks.learning.controls.tables import plus_minus
from tests.benchmarks.learning.controls.tasks import TASKS

MODULE = "tests.benchmarks.learning.controls.recommended"
BUDGET = 100_000
# What the README's first example passes to `use_attention`.
ATTENTION = AttentionConfig(num_layers=2, dim=64, num_heads=4, window=32)


@dataclass(frozen=True)
class Settings:
    """What is set beside attention.

    Attributes:
        title: What the table calls them.
        model: Fields of the model config.
        training: Arguments of `config.training`.
        num_envs: Sub-environments.
    """

    title: str
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    num_envs: int = 1


ENCODER = {"fcnet_hiddens": [64], "vf_share_layers": True}
SETTINGS = {
    "defaults": Settings("PPO's defaults"),
    "encoder": Settings("one small encoder", ENCODER),
    "recommended": Settings(
        "recommended", ENCODER, {"lr": 5e-4, "minibatch_size": 512, "num_epochs": 6}, num_envs=8
    ),
}
ENVS = {
    "t_maze_10": (TMaze, {"corridor_length": 10}),
    "t_maze_30": (TMaze, {"corridor_length": 30}),
    "repeat_previous": (make_repeat_previous, {"difficulty": "easy"}),
    "stateless_cartpole": (make_stateless_cartpole, {}),
}


def make_config(task: str, settings: Settings) -> PPOConfig:
    """Returns the README's first example on one of the tasks.

    Args:
        task: Key of `ENVS`.
        settings: What is set beside attention.
    """
    env, env_config = ENVS[task]
    tune.register_env(task, env)
    config = PPOConfig().environment(task, env_config=env_config)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=settings.num_envs)
    if task == "repeat_previous":
        config.env_runners(
            env_to_module_connector=lambda env, spaces, device: FlattenObservations()
        )
    config.rl_module(model_config=settings.model).training(**settings.training)
    return use_attention(config, ATTENTION)


def train(task: str, settings: str, seed: int, folder: Path) -> None:
    """Trains to the bar or the end of the budget, and prints the closing line.

    Args:
        task: Key of `ENVS`.
        settings: Key of `SETTINGS`.
        seed: The seed.
        folder: Where the run writes.
    """
    args = TASKS[task].args(seed=seed, folder=folder)
    args.stop_timesteps = BUDGET
    run_example(make_config(task, SETTINGS[settings]).debugging(seed=seed), args)


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns steps and CPU seconds to the bar, by task and settings, as Markdown.

    Args:
        outcomes: Finished runs, with settings as their `model`.
    """
    titles = [settings.title for settings in SETTINGS.values()]
    lines = [f"| env steps, CPU seconds to the bar | {' | '.join(titles)} |"]
    lines.append("|---" * (1 + len(titles)) + "|")
    for task in ENVS:
        cells = [f"{TASKS[task].title} (bar {TASKS[task].bar:g})"]
        for settings in SETTINGS:
            cells.append(_cell([o for o in outcomes if (o.task, o.model) == (task, settings)]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(runs: Sequence[Outcome]) -> str:
    if not runs:
        return "–"
    summary = summarize(runs)
    if summary.reached < summary.runs:
        digits = 0 if abs(summary.value[0]) >= 10 else 2
        value = plus_minus(summary.value, digits)
        return f"{summary.reached} of {summary.runs}; {value} after {summary.budget:,}"
    return f"{plus_minus(summary.steps)}, {plus_minus(summary.seconds)} s"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results-dir", type=Path, default=Path("results/recommended"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--tasks", nargs="+", choices=list(ENVS), default=list(ENVS))
    parser.add_argument("--only", nargs=3, metavar=("TASK", "SETTINGS", "SEED"), help="one run")
    return parser.parse_args(arguments)


def main() -> None:
    """Runs what is missing, then prints the table."""
    args = parse_args()
    results = args.results_dir.absolute()
    if args.only:
        task, settings, seed = args.only
        train(task, settings, int(seed), results)
        return
    runs = [(t, s, n) for n in args.seeds for t in args.tasks for s in SETTINGS]
    for task, settings, seed in runs:
        folder = results / f"{task}-{settings}-{seed}"
        only = ["--only", task, settings, str(seed)]
        run_once(["-m", MODULE, *only, f"--results-dir={folder}"], folder)
    found = [read_outcome(results / f"{t}-{s}-{n}", t, s, n) for t, s, n in runs]
    print(table([outcome for outcome in found if outcome is not None]))


if __name__ == "__main__":
    main()
