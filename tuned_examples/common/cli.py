"""The command line of the example scripts. Models and algorithms are set in the scripts."""

import argparse
import importlib
import sys

EXTRA_HINT = 'pip install "rllib-attention[examples]"'


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's layout and names a default only where there is a value to give."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


def example_parser(
    doc: str | None, *, stop_reward: float, stop_timesteps: int, num_env_runners: int = 0
) -> argparse.ArgumentParser:
    """Makes the parser that the example scripts share; a script may add options of its own.

    Args:
        doc: The script's docstring, shown by `--help`.
        stop_reward: The script's bar, which `--stop-reward` may change.
        stop_timesteps: The script's budget, which `--stop-timesteps` may change.
        num_env_runners: The script's sampling processes; 0 to sample in its own process.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=_HelpFormatter)
    add = parser.add_argument
    add("--num-env-runners", type=int, default=num_env_runners, help="processes that sample")
    add("--num-learners", type=int, default=0, help="learner processes; 0: in this process")
    add("--num-gpus-per-learner", type=float, default=0, help="GPUs that each learner takes")
    add("--seed", type=int, default=0, help="seed of environments and networks")
    add("--stop-reward", type=float, default=stop_reward, help="mean return to reach (the bar)")
    add("--stop-timesteps", type=int, default=stop_timesteps, help="budget of environment steps")
    add("--stop-iters", type=int, help="most training iterations")
    add("--as-test", action="store_true", help="exit with code 1 if the bar is not reached")
    add("--results-dir", help="folder for the run's files (unset: results/<script>-<timestamp>)")
    add("--restore", metavar="CHECKPOINT", help="go on from this checkpoint folder")
    add("--verbose", action="store_true", help="let Ray log its warnings and worker output")
    return parser


def require(module: str, purpose: str, extra: str = "examples") -> None:
    """Ends the script with the command that installs an optional package, if it is missing.

    Args:
        module: Name of the module that is needed.
        purpose: What needs it, as the start of the message.
        extra: The extra of this package that installs it.

    Raises:
        SystemExit: If the package is not installed.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # The package is there; something inside it is broken.
        hint = EXTRA_HINT.replace("examples", extra)
        sys.exit(f"{purpose} needs the package {error.name!r}: {hint}")
