"""What the tests of the example scripts share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tuned_examples"

# The scripts find their helper package beside them; the tests must look there as well.
sys.path.insert(0, str(EXAMPLES))

RunScript = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run_script(tmp_path: Path) -> RunScript:
    """Runs a script as a user would, in an empty folder."""

    def run(script: Path, *args: str, timeout: float = 240.0) -> subprocess.CompletedProcess:
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, str(script), *args],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
