"""Peak memory of a runner and of a learner, each alone in a process of its own.

As a script, `python -m tests.benchmarks.peak_memory JOB` is that process: JOB is a pickled `Job`.
"""

import json
import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import cloudpickle

from tests.benchmarks import phases
from tests.benchmarks.environment import IdleEnv
from tests.benchmarks.labels import GTRXL
from tests.benchmarks.models import ppo_config
from tests.benchmarks.options import Options, Size

ROLES = ("runner", "learner")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Job:
    """What a process measures; `data` is a file of pickled fragments for the learner."""

    model: str
    role: str
    size: Size
    options: Options
    data: Path


def peak_memory(size: Size, options: Options) -> dict[str, dict[str, float]]:
    """Measures how far memory rises above what it is after all imports.

    Args:
        size: Width and window.
        options: The command line.

    Returns:
        Bytes by model and role.
    """
    # Memory does not mind company, as time does: as many processes at once as there are cores.
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        found: dict[str, dict[str, Future]] = {}
        for model in options.models:
            data = Path(folder, f"{model}.pickle")
            data.write_bytes(_fragment(model, size, options))
            jobs = {role: Job(model, role, size, options, data) for role in ROLES}
            found[model] = {role: pool.submit(_in_own_process, job) for role, job in jobs.items()}
        return {
            model: {role: future.result() for role, future in roles.items()}
            for model, roles in found.items()
        }


def _fragment(model: str, size: Size, options: Options) -> bytes:
    """Samples what a learner gets; the first fragment would have nothing to look back on."""
    algo = ppo_config(model, size, options).build_algo()
    phases.rollout(algo, options.batch)
    data = phases.rollout(algo, options.batch)
    algo.stop()
    return cloudpickle.dumps(data)


def _in_own_process(job: Job) -> float:
    path = job.data.with_suffix(f".{job.role}")
    path.write_bytes(pickle.dumps(job))
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.peak_memory", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address},
    )
    if result.returncode:
        raise RuntimeError(f"Measuring {job.model}'s {job.role} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def _run(job: Job) -> None:
    if job.model != GTRXL and job.role == "learner":
        config = ppo_config(job.model, job.size, job.options)
        learner_group = config.build_learner_group(env=IdleEnv(config.env_config))
        episodes = cloudpickle.loads(job.data.read_bytes())
        phases.update_learners(learner_group, config, episodes)
        return
    # The old stack has runner and learner in one object; the new stack's learner, built beside
    # the runner, holds parameters only.
    algo = ppo_config(job.model, job.size, job.options).build_algo()
    if job.role == "learner":
        data = cloudpickle.loads(job.data.read_bytes())
        phases.update(algo, data)
    else:
        for _ in range(2):
            phases.rollout(algo, job.options.batch)


def _resident(field: str) -> int:
    """Reads VmRSS (now) or VmHWM (the highest so far), in bytes.

    `getrusage` would do, but a process inherits its parent's peak there on Linux.
    """
    if STATUS.exists():
        match = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
        assert match
        return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    before = _resident("VmRSS")
    _run(job)
    print(json.dumps(_resident("VmHWM") - before))
