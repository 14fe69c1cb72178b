"""Runs every test on one thread each, those that need it in one local Ray."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# Property tests: a few fixed cases by default, many new ones with `--hypothesis-profile=nightly`.
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("few", max_examples=10, derandomize=True, database=None, **_COMMON)
settings.register_profile("nightly", max_examples=500, print_blob=True, **_COMMON)
settings.load_profile("few")

# Tests that start no Ray here: those of `nn` run even where it is not installed.
_WITHOUT_RAY = {
    "nn",
    "test_compat.py",
    "test_config.py",
    "test_docs_model_config.py",
    "test_docs_pictures.py",
    "test_docs_troubleshooting.py",
    "test_imports.py",
    "test_public_api.py",
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Starts one Ray for all tests, with room for remote runners and learners on any machine."""
    if item.path.relative_to(Path(__file__).parent).parts[0] in _WITHOUT_RAY:
        return
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@pytest.fixture
def stop():
    """Collects algorithms and stops them after the test."""
    algos: list = []
    yield lambda algo: algos.append(algo) or algo
    for algo in algos:
        algo.stop()
