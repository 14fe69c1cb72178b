"""Starting Ray quietly, and stopping on Ctrl-C without losing what was learned."""

import argparse
import logging
import os
import signal
import warnings
from types import FrameType, TracebackType

import ray


def start_ray(args: argparse.Namespace) -> None:
    """Connects to the Ray cluster named by `RAY_ADDRESS`, or starts one on this machine.

    Args:
        args: The parsed command line.
    """
    if not args.verbose:
        _quieten()
    options = {"log_to_driver": args.verbose, "ignore_reinit_error": True}
    if not args.verbose:
        options["logging_level"] = logging.ERROR
    if "RAY_ADDRESS" not in os.environ:
        # On a small machine Ray would wait for ever for more CPUs than there are.
        wanted = args.num_env_runners + args.num_learners + 2
        options |= {"num_cpus": max(os.cpu_count() or 1, wanted), "include_dashboard": False}
    ray.init(**options)


def _quieten() -> None:
    """Leaves only errors of Ray, here and in the processes that Ray starts."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    warnings.simplefilter("ignore")
    for name in ("ray", "ray.rllib", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


class StopRequest:
    """Turns Ctrl-C (and SIGTERM) into a request that the run loop looks at between iterations.

    The first signal asks the loop to stop after the iteration that is running. The second one
    raises `KeyboardInterrupt` there and then, for those who do not want to wait. Once `saving` is
    set, signals are only answered with a message, so that a checkpoint is never half written.
    """

    def __init__(self) -> None:
        self.asked = False
        self.saving = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        """Takes over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.saving:
            print("saving the checkpoint, one moment ...", flush=True)
        elif self.asked:
            raise KeyboardInterrupt
        else:
            self.asked = True
            print(
                "stopping after this iteration, then saving (Ctrl-C again: save at once)",
                flush=True,
            )
