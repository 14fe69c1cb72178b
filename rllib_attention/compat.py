"""Which versions of Ray this package works with."""

import re

MIN_RAY_VERSION = (2, 55)
RAY_REQUIREMENT = "ray[rllib]>={}.{}".format(*MIN_RAY_VERSION)


def has_supported_ray() -> bool:
    """Return whether Ray is installed, and refuse one that is too old.

    Returns:
        True with a supported Ray, False without any.

    Raises:
        ImportError: Ray is too old, or one of its own dependencies is missing.
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
    """Refuse versions of Ray whose RLlib lacks what this package builds on.

    Args:
        version: The installed version, as in `ray.__version__`.

    Raises:
        ImportError: The version is older than the oldest supported one, or is no version.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < MIN_RAY_VERSION:
        raise ImportError(
            f"rllib_attention needs {RAY_REQUIREMENT}, found ray {version}. "
            f'Mend it with `pip install "{RAY_REQUIREMENT}"`.'
        )
