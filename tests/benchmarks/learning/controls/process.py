"""A run in a process of its own, once."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.learning.controls import ROOT
from tests.benchmarks.learning.controls.outcomes import closing_line_of


def run_once(command: Sequence[str], folder: Path) -> None:
    """Runs a command that trains and ends with a closing line, unless it has done so before.

    Args:
        command: The command line, without the interpreter; it writes to `folder`.
        folder: Folder of the run. Its `log.txt` is the command's output.

    Raises:
        SystemExit: If the run fails or is interrupted.
    """
    if closing_line_of(folder / "log.txt"):
        return
    shutil.rmtree(folder, ignore_errors=True)  # A run that was cut short is of no use.
    folder.mkdir(parents=True)
    print(f"python {shlex.join(command)}", flush=True)
    with (folder / "log.txt").open("w") as log:
        code = subprocess.call(
            [sys.executable, *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    line = closing_line_of(folder / "log.txt")
    if code or not line:
        (folder / "log.txt").rename(folder / "failed.txt")
        sys.exit(f"the run failed with code {code}: {folder / 'failed.txt'}")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    print(f"  {line[0]}", flush=True)
