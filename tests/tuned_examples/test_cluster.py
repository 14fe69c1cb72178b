"""The cluster rehearsal: a job over three nodes of this machine, one of which is killed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tuned_examples" / "cluster" / "local_cluster.sh"
OPTIONS = ["--stop-reward=500", "--stop-timesteps=25000", "--checkpoint-every=1"]

needs_jobs = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="submitting jobs needs ray[default]"
)


def test_the_script_is_executable_and_parses() -> None:
    assert os.access(SCRIPT, os.X_OK)
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0


@needs_jobs
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_job_outlives_a_node(tmp_path: Path) -> None:
    settings = {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STORAGE": str(tmp_path / "storage"),
        "PORT": "6395",
        "DASHBOARD_PORT": "8295",
        "KILL_NODE_AFTER": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [str(SCRIPT), *OPTIONS],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    log = done.stdout
    assert done.returncode == 0, log + done.stderr
    before, after = log.split("killed the raylet of worker node 3\n")
    assert re.search(r"^return .* nodes 3$", before, re.MULTILINE)
    assert re.search(r"^return .* nodes 2$", after, re.MULTILINE)
    closing = re.findall(r"^return=\S+  env_steps=(\d+)  .* not reached$", after, re.MULTILINE)
    assert len(closing) == 1
    assert int(closing[0]) >= 25_000
    assert "SUCCEEDED" in after
    assert list((tmp_path / "storage").glob("attention/PPO_*/checkpoint_*"))
