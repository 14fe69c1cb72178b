"""Fixtures of the replay buffer tests."""

import os
from pathlib import Path

import pytest
import ray


@pytest.fixture(scope="session")
def cluster():
    """A local cluster whose workers can import this folder's modules and the package."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[2]), os.environ.get("PYTHONPATH", "")])
    ray.shutdown()
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    yield
    ray.shutdown()
