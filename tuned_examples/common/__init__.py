"""What every example script shares: command line, choice of memory, run loop, plots, tasks."""

from common.cli import EXTRA_HINT, example_parser, require
from common.models import set_model
from common.run import run_config, run_example
from common.runtime import start_ray

__all__ = [
    "EXTRA_HINT",
    "example_parser",
    "require",
    "run_config",
    "run_example",
    "set_model",
    "start_ray",
]
