"""What the example scripts share: a command line and the loop around `algo.train()`."""

from common.cli import example_parser, require
from common.run import make_results_dir, run_example, start_ray

__all__ = ["example_parser", "make_results_dir", "require", "run_example", "start_ray"]
