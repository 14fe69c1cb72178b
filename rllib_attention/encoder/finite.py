"""Whether observations are finite, looked at where they are on the host if possible."""

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor


def check_finite(obs: np.ndarray | Tensor, name: str, where: Callable[[int], str]) -> None:
    """Checks observations. On a GPU, a tensor is waited for.

    Args:
        obs: Observations, (N, ...).
        name: What errors call the module that reads them.
        where: Says which step one of them is of, by its index.

    Raises:
        ValueError: If a number is infinite, also once it is a float32, or none at all.
    """
    if isinstance(obs, Tensor):
        if not obs.is_floating_point() or math.isfinite(obs.sum()):
            return
        # The sum is one kernel. If it is not finite, that may be an overflow: look again.
        obs = obs.detach().float().cpu().numpy()
    with np.errstate(all="ignore"):
        if obs.dtype.kind != "f" or math.isfinite(obs.sum(dtype=np.float32)):
            return
        is_bad = ~np.isfinite(obs.astype(np.float32, copy=False))
    if not is_bad.any():
        return
    first = int(is_bad.reshape(len(obs), -1).any(1).argmax())
    raise ValueError(
        f"Observations of {name} hold {is_bad.sum()} non-finite values (NaN or infinity) of "
        f"{obs.size}: expected finite ones, the first that is none lies at {where(first)}. Fix: "
        "correct the environment, or switch this check off by "
        "`use_attention(config, check_finite=False)`."
    )
