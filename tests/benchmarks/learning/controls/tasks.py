"""The tasks of the comparison: tuned examples, with the model left open."""

import argparse
import importlib
from dataclasses import dataclass
from pathlib import Path

from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionConfig
from tests.benchmarks.learning.controls.models import MODELS


@dataclass(frozen=True)
class Task:
    """A task of the comparison.

    Attributes:
        title: What the report calls it.
        script: The tuned example, without its ending.
        bar: The mean return to reach.
        budget: Environment steps after which a run is given up.
        attention: What the script passes to `use_attention`; the other models get its sizes.
        options: Options of the script.
        models: Keys of `MODELS`: what can be run on it.
    """

    title: str
    script: str
    bar: float
    budget: int
    attention: AttentionConfig
    options: tuple[str, ...] = ()
    models: tuple[str, ...] = tuple(MODELS)

    def args(self, *, seed: int, folder: Path) -> argparse.Namespace:
        """Reads the task's command line with the script's own parser.

        Args:
            seed: The run's seed.
            folder: Where the run writes.
        """
        options = [
            *self.options,
            # One process, so that seconds compare models and not how they share cores.
            "--num-env-runners=0",
            f"--seed={seed}",
            f"--stop-reward={self.bar}",
            f"--stop-timesteps={self.budget}",
            f"--results-dir={folder}",
        ]
        return importlib.import_module(self.script).parser.parse_args(options)

    def config(self, model: str, args: argparse.Namespace) -> PPOConfig:
        """Returns the script's config with one of the models.

        Args:
            model: Key of `MODELS`.
            args: The parsed command line.
        """
        config = importlib.import_module(self.script).make_config(args)
        config.env_runners(num_envs_per_env_runner=16)
        return MODELS[model](config, self.attention)


def _attention(*, num_layers: int, window: int, max_seq_len: int) -> AttentionConfig:
    return AttentionConfig(
        num_layers=num_layers, dim=64, num_heads=4, window=window, max_seq_len=max_seq_len
    )


def _maze(length: int) -> Task:
    """Returns the T-maze whose junction lies some steps after the cue."""
    return Task(
        f"T-maze, corridor of {length}",
        "ppo_t_maze",
        bar=0.9,
        budget=100_000,
        attention=_attention(num_layers=1, window=length + 1, max_seq_len=max(32, length + 1)),
        options=(f"--corridor-length={length}",),
    )


def _long_maze(length: int) -> Task:
    """Returns the T-maze whose cue lies hundreds of steps back: dilated windows.

    GTrXL is left out: its memory would have to hold the whole corridor, at each step of a batch.
    """
    return Task(
        f"T-maze, corridor of {length:,}, dilated",
        "ppo_long_t_maze",
        bar=0.9,
        budget=1_000_000,
        attention=importlib.import_module("ppo_long_t_maze").make_attention(length),
        options=(f"--corridor-length={length}",),
        models=("attention", "lstm", "mlp"),
    )


SMALL = _attention(num_layers=2, window=16, max_seq_len=32)
CORRIDORS = {length: f"t_maze_{length}" for length in (10, 30, 100)}
TASKS = {
    "repeat_previous": Task(
        "RepeatPrevious, easy", "ppo_repeat_previous", bar=0.9, budget=150_000, attention=SMALL
    ),
    "stateless_cartpole": Task(
        "CartPole without velocities",
        "ppo_stateless_cartpole",
        bar=350.0,
        budget=200_000,
        attention=SMALL,
    ),
    **{name: _maze(length) for length, name in CORRIDORS.items()},
    **{f"long_t_maze_{length}": _long_maze(length) for length in (300, 1_000, 1_500)},
}
