"""Which versions of Ray are let in."""

import os
import re
import warnings

MIN_RAY_VERSION = (2, 55)
MAX_RAY_VERSION = (2, 60)
"""The newest minor version that the tests have passed with."""
RAY_REQUIREMENT = (
    f"ray[rllib]>={MIN_RAY_VERSION[0]}.{MIN_RAY_VERSION[1]},"
    f"<{MAX_RAY_VERSION[0]}.{MAX_RAY_VERSION[1] + 1}"
)
ALLOW_UNTESTED_RAY = "RLLIB_ATTENTION_ALLOW_UNTESTED_RAY"
"""Environment variable that lets newer versions of Ray in."""


def has_supported_ray() -> bool:
    """Return whether Ray is installed, and refuse a version that was not tested.

    Returns:
        True with a supported Ray, False without any.

    Raises:
        ImportError: See `check_ray_version`; or one of Ray's own dependencies is missing.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        # A Ray that is there but misses a dependency is broken, not absent.
        if error.name != "ray":
            raise
        return False
    # Without Ray, a plain folder of that name on the path (Ray leaves one in the temporary
    # folder) imports as an empty namespace package.
    if ray.__file__ is None:
        return False
    check_ray_version(ray.__version__)
    return True


def check_ray_version(version: str) -> None:
    """Refuse versions of Ray with which results are not known to be right.

    Older ones lack what this package builds on. In newer ones RLlib's internals may have moved
    without an error, so they are let in by the environment variable `ALLOW_UNTESTED_RAY` only.

    Args:
        version: The installed version, as in `ray.__version__`.

    Raises:
        ImportError: The version is older than the oldest supported one, newer than the newest
            tested one (without the environment variable), or no version.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    minor = (int(match[1]), int(match[2])) if match else (0, 0)
    if MIN_RAY_VERSION <= minor <= MAX_RAY_VERSION:
        return
    message = (
        f"rllib_attention needs {RAY_REQUIREMENT}, found ray {version}. "
        f'Fix: `pip install "{RAY_REQUIREMENT}"`.'
    )
    if minor < MIN_RAY_VERSION:
        raise ImportError(message)
    if os.environ.get(ALLOW_UNTESTED_RAY) != "1":
        raise ImportError(
            f"{message} To try a newer Ray, run `pytest tests/rllib_contract` from the "
            f"source with it, then set {ALLOW_UNTESTED_RAY}=1 on the driver and on all workers."
        )
    warnings.warn(
        f"rllib_attention was not tested with ray {version} and runs because "
        f"{ALLOW_UNTESTED_RAY}=1 is set; tested: {RAY_REQUIREMENT}.",
        RuntimeWarning,
        stacklevel=2,
    )
