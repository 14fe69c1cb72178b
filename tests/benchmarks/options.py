"""What is measured: the sizes of models, batches and sweeps, from the command line."""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.labels import ATTENTION, PPO_MODELS

PARTS = ("ppo", "replay", "rollout", "learner", "bytes", "memory", "limit", "acting", "callback")


@dataclass(frozen=True)
class Size:
    """Width and window of a model; the other options are common to all sizes."""

    dim: int
    window: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Reads `64x32`: width 64, window 32.

        Args:
            text: Width and window, joined by an x.

        Returns:
            The size.

        Raises:
            ValueError: If `text` is anything else.
        """
        dim, window = text.split("x")
        return cls(int(dim), int(window))

    def __str__(self) -> str:
        return f"{self.dim}x{self.window}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line. Each field is an option; its `help` is below, in `_HELP`."""

    out: Path = Path("results/benchmarks")
    parts: tuple[str, ...] = PARTS
    models: tuple[str, ...] = PPO_MODELS
    sizes: tuple[Size, ...] = (Size(64, 32), Size(128, 64))
    num_layers: int = 2
    num_heads: int = 4
    ffn_factor: int = 2
    num_envs: int = 8
    episode_length: int = 200
    batch: int = 2000
    minibatch: int = 256
    num_epochs: int = 6
    chunk: int = 128
    seq_len: int = 32
    rounds: int = 5
    pass_rounds: int = 10
    replay_batch: int = 256
    replay_updates: int = 4
    run_lens: tuple[int, ...] = (1, 4, 8, 16, 32)
    windows: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024)
    rollout_windows: tuple[int, ...] = (8, 32, 128, 512, 1024)
    layers: tuple[int, ...] = (1, 2, 4, 8)
    envs: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    chunks: tuple[int, ...] = (32, 64, 128, 256, 512)
    sessions: tuple[int, ...] = (1, 64, 1024)
    decisions: int = 1024
    callback_steps: int = 500
    threads: int = 0

    def to_dict(self) -> dict:
        """Returns what `results.json` says about the run; nothing about the machine's files."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["out"]
        return fields | {"sizes": [str(size) for size in self.sizes]}


# About a minute on two idle cores: it shows that everything runs, its figures are rough.
QUICK = {
    "sizes": (Size(64, 32),),
    "batch": 512,
    "num_epochs": 2,
    "rounds": 2,
    "pass_rounds": 3,
    "replay_batch": 64,
    "replay_updates": 2,
    "run_lens": (1, 8),
    "windows": (8, 32, 64),
    "rollout_windows": (32, 512),
    "layers": (1, 2),
    "envs": (1, 8),
    "chunks": (64, 128),
    "sessions": (1, 64),
    "decisions": 64,
    "callback_steps": 50,
}

_CHOICES = {"parts": PARTS, "models": PPO_MODELS}

_HELP = {
    "out": "folder of results.json, results.md and results.png",
    "parts": f"which of {', '.join(PARTS)} to measure",
    "models": f"which of {', '.join(PPO_MODELS)} to measure with PPO; attention among them",
    "sizes": "width x window of all models in the comparison with RLlib's",
    "num_layers": "layers of attention and GTrXL",
    "num_heads": "heads of attention and GTrXL",
    "ffn_factor": "hidden width of their feed-forward, in widths",
    "num_envs": "sub-environments of the runner",
    "episode_length": "env steps in an episode",
    "batch": "env steps in a PPO iteration",
    "minibatch": "env steps in a PPO minibatch",
    "num_epochs": "PPO epochs",
    "chunk": "attention's max_seq_len",
    "seq_len": "max_seq_len of LSTM and GTrXL",
    "rounds": "measured rounds; one more warms up",
    "pass_rounds": "the same for passes of the encoder alone, which take milliseconds",
    "replay_batch": "transitions in an update of SAC and DQN",
    "replay_updates": "updates of SAC and DQN in a round",
    "run_lens": "transitions in attention's replayed runs",
    "windows": "growth of learner time",
    "rollout_windows": "growth of rollout time",
    "layers": "growth of both",
    "envs": "growth of both (rows, in the learner)",
    "chunks": "growth of learner time; each twice the one before",
    "sessions": "sessions that an AttentionPolicy decides for in one call",
    "decisions": "decisions in a round, of each number of sessions",
    "callback_steps": "env steps in the episodes that are evaluated with AttentionMapCallback",
    "threads": "torch's threads; 0 leaves torch's own number",
}


def parse_options(argv: list[str] | None = None) -> Options:
    """Reads the command line and sets torch's threads.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The options, with the number of threads filled in.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measures attention against RLlib's own models. Leave the machine alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="rough figures in about a minute")
    for field in dataclasses.fields(Options):
        name = f"--{field.name.replace('_', '-')}"
        default, text = field.default, _HELP[field.name]
        if field.name in _CHOICES:
            choices = _CHOICES[field.name]
            parser.add_argument(name, nargs="+", choices=choices, default=default, help=text)
        elif isinstance(default, tuple):
            kind = Size.parse if field.name == "sizes" else int
            parser.add_argument(name, nargs="+", type=kind, default=default, help=text)
        else:
            parser.add_argument(name, type=type(default), default=default, help=text)
    if parser.parse_args(argv).quick:
        parser.set_defaults(**QUICK)
    values = vars(parser.parse_args(argv))
    del values["quick"]
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    if ATTENTION not in values["models"]:
        parser.error("--models: ratios are attention's, expected attention among the models.")
    values["threads"] = values["threads"] or torch.get_num_threads()
    torch.set_num_threads(values["threads"])
    return Options(**values)
