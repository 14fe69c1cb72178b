"""Runs every test on one thread each, in one local Ray."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "1")

import pytest
import ray
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _one_ray():
    """One Ray for all tests, with room for remote runners and learners on any machine."""
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def stop():
    """Collects algorithms and stops them after the test."""
    algos: list = []
    yield lambda algo: algos.append(algo) or algo
    for algo in algos:
        algo.stop()
