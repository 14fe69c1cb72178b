"""The check of Ray's version."""

import re
from pathlib import Path

import pytest
import ray

from rllib_attention.compat import RAY_REQUIREMENT, check_ray_version, has_supported_ray


@pytest.mark.parametrize(
    "version", ["2.55.0", "2.55.0rc1", "2.60.1", "2.100.0", "3.0.0.dev0", "10.1"]
)
def test_accepts_supported_versions(version):
    check_ray_version(version)


def test_accepts_the_installed_version():
    check_ray_version(ray.__version__)
    assert has_supported_ray()


def test_the_package_metadata_names_the_same_version():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert f'"{RAY_REQUIREMENT}"' in pyproject.read_text()


@pytest.mark.parametrize("version", ["2.54.9", "2.5.1", "1.99.0", "0.8", "unknown", ""])
def test_refuses_others_with_the_command_that_mends_it(version):
    message = (
        f"rllib_attention needs ray[rllib]>=2.55,<2.61, found ray {version}. "
        'Fix: `pip install "ray[rllib]>=2.55,<2.61"`.'
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        check_ray_version(version)
