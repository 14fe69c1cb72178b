"""One run in a process of its own.

Not in `__main__.py`: a new process does not import that file again, and would not find it.
"""

import logging
import traceback
import warnings
from pathlib import Path


def run_one(fields: dict, folder: Path) -> bool:
    """Does one run in this process; prints an error instead of raising it.

    Args:
        fields: Of the `Run`.
        folder: Where its file goes.

    Returns:
        Whether it ended well.
    """
    import ray

    from tests.benchmarks.learning.run import Run, execute

    warnings.filterwarnings("ignore")
    logging.getLogger("ray").setLevel(logging.ERROR)
    run = Run(**fields)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=1)
        last = execute(run, folder)["curve"][-1]
        print(f"{run.name}: {last['value']:.3f} after {last['steps']:,} steps", flush=True)
    except Exception:
        print(f"{run.name} failed:\n{traceback.format_exc()}", flush=True)
        return False
    finally:
        ray.shutdown()
    return True
