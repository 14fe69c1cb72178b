"""`python -m rllib_attention inspect CHECKPOINT`: a page, pictures and numbers of episodes."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rllib_attention.inspection.page import write_page
from rllib_attention.inspection.plot import plot_attention
from rllib_attention.inspection.recording import opened, played_records


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Those of the command line; None for `sys.argv`.

    Raises:
        SystemExit: If they are wrong, or no episode can be played with them.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        print(inspect(args))
    except (ImportError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")


def inspect(args: argparse.Namespace) -> Path:
    """Plays episodes and writes what there is to see.

    Args:
        args: What the command line says.

    Returns:
        The page.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no such checkpoint, module or environment.
    """
    records, frames = [], []
    with opened(args.checkpoint, args.module_id, args.agent_id, args.env, args.env_config) as (
        parts,
        env,
    ):
        args.out.mkdir(parents=True, exist_ok=True)
        played = played_records(
            parts,
            env,
            args.episodes,
            args.agent_id,
            args.seed,
            max_steps=args.max_steps,
            with_frames=True,
        )
        for number, (record, episode) in enumerate(played, start=1):
            record.save(args.out / f"episode_{number}.npz")
            plot_attention(record, args.out / f"episode_{number}.png")
            records.append(record)
            # An agent that does not act at each step has no frame for each of its own.
            frames.append(episode.frames if len(episode.frames) == len(record) else [])
    title = f"Attention of {args.checkpoint.absolute().name}"
    return write_page(args.out / "index.html", title, records, frames)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rllib_attention")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "inspect",
        help="which past steps a trained policy attends to",
        description="Plays episodes with a checkpoint's policy, without exploration, and writes "
        "index.html (one page without outside resources), and a picture and the numbers of each.",
    )
    command.add_argument("checkpoint", type=Path, help="of an Algorithm, a Tune trial, an RLModule")
    command.add_argument(
        "--env", help="ID of Gymnasium, or module:attribute; else the checkpoint's"
    )
    command.add_argument("--env-config", type=_options, help="the environment's options, as JSON")
    command.add_argument("--episodes", type=int, default=1, help="how many to play (1)")
    command.add_argument("--out", type=Path, default=Path("attention"), help="folder (attention)")
    command.add_argument("--module-id", help="which module, where several have attention")
    command.add_argument("--agent-id", help="which of its agents; else the one that acts longest")
    command.add_argument("--seed", type=int, help="for the first episode's reset")
    command.add_argument("--max-steps", type=int, help="leave episodes after so many steps")
    return parser


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected JSON, got {text!r}: {error}") from error
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f'expected a JSON object such as {{"n": 3}}, got {text!r}')
    return options
