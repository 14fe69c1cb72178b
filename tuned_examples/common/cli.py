"""The command line of the example scripts."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

EXTRA_HINT = 'pip install "rllib-attention[examples]"'

# Controls that a script may offer beside attention: flag, stored name, help text.
_CONTROLS = {
    "mlp": ("--no-attention", "control without memory: RLlib's own MLP or CNN module"),
    "lstm": ("--lstm", "control with RLlib's LSTM"),
    "gtrxl": ("--gtrxl", "control with RLlib's own GTrXL on the old API stack"),
}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's layout and names a default only where there is a value to give."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


def require(module: str, purpose: str) -> Any:
    """Imports an optional package, or ends the script with the command that installs it.

    Args:
        module: Name of the module to import.
        purpose: What needs it, as the start of the message.

    Returns:
        The imported module.

    Raises:
        SystemExit: If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # The package is there; something inside it is broken.
        sys.exit(f"{purpose} needs the package {error.name!r}: {EXTRA_HINT}")


def example_parser(
    doc: str | None, *, controls: Sequence[str] = ("mlp", "lstm", "gtrxl"), **defaults: Any
) -> argparse.ArgumentParser:
    """Makes the parser that all example scripts share.

    Args:
        doc: The script's docstring, shown by `--help`.
        controls: Which controls make sense for the script's algorithm.
        **defaults: The script's own defaults, by option name (`stop_reward=350.0`).

    Returns:
        A parser to which the script may add options of its own.

    Raises:
        ValueError: If a default names no option or a control is unknown.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=_HelpFormatter)
    _add_run_options(parser)
    _add_stop_options(parser)
    _add_result_options(parser)
    _add_model_options(parser, controls)
    unknown = sorted(set(defaults) - {action.dest for action in parser._actions})
    if unknown:
        raise ValueError(f"example_parser: no option for the default(s) {unknown}")
    parser.set_defaults(**defaults)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to run")
    group.add_argument(
        "--num-env-runners", type=int, default=0, help="sampling processes; 0: in this process"
    )
    group.add_argument(
        "--num-envs-per-env-runner", type=int, default=16, help="environments in each of them"
    )
    group.add_argument(
        "--num-learners", type=int, default=0, help="learner processes; 0: in this process"
    )
    group.add_argument(
        "--num-gpus-per-learner", type=float, default=0, help="GPUs that each learner takes"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of environments and networks")
    group.add_argument(
        "--verbose", action="store_true", help="let Ray log its warnings and worker output"
    )


def _add_stop_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when to stop")
    group.add_argument(
        "--stop-reward", type=float, default=None, help="mean episode return to reach (the bar)"
    )
    group.add_argument(
        "--stop-timesteps", type=int, default=200_000, help="budget of environment steps"
    )
    group.add_argument(
        "--stop-iters", type=int, default=None, help="most training iterations (unset: no limit)"
    )
    group.add_argument(
        "--as-test", action="store_true", help="exit with code 1 if the bar is not reached"
    )


def _add_result_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to keep")
    group.add_argument(
        "--results-dir",
        default=None,
        help="folder for this run's files (unset: results/<script>-<timestamp>)",
    )
    group.add_argument(
        "--checkpoint-at-end",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="save the algorithm when training ends",
    )
    group.add_argument(
        "--checkpoint-every", type=int, default=0, help="also save every N iterations; 0: never"
    )
    group.add_argument(
        "--restore", default=None, metavar="CHECKPOINT", help="go on from this checkpoint folder"
    )


def _add_model_options(parser: argparse.ArgumentParser, controls: Sequence[str]) -> None:
    group = parser.add_argument_group("model (attention unless a control is chosen)")
    group.add_argument("--window", type=int, default=16, help="steps each layer attends to")
    group.add_argument("--num-layers", type=int, default=2, help="attention layers")
    group.add_argument("--dim", type=int, default=64, help="width of the model")
    group.add_argument("--num-heads", type=int, default=4, help="attention heads per layer")
    group.add_argument("--max-seq-len", type=int, default=32, help="steps per training chunk")
    group.add_argument("--prev-actions", type=int, default=0, help="past actions in the input")
    group.add_argument("--prev-rewards", type=int, default=0, help="past rewards in the input")
    unknown = sorted(set(controls) - set(_CONTROLS))
    if unknown:
        raise ValueError(f"controls must be among {sorted(_CONTROLS)}, got {unknown}")
    exclusive = group.add_mutually_exclusive_group()
    for name in controls:
        flag, text = _CONTROLS[name]
        exclusive.add_argument(flag, dest="model", action="store_const", const=name, help=text)
    parser.set_defaults(model="attention")
