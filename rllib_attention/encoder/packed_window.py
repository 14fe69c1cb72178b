"""The window path's observation: a stretch of history packed into one tensor.

RLlib's DQN, SAC and their kin hand nothing but `obs` to their encoders, and TQC and CQL expect it
to be one tensor. So each token of a window is one flat vector `[observation | features | valid]`.
It keeps the observation's type if that is uint8: float32 features then travel as their bytes.
Shapes: K window steps, P packed size of a token, F features.
"""

import numpy as np
import torch
from torch import Tensor


def packed_size(obs_size: int, num_features: int, *, as_bytes: bool) -> int:
    """Returns the size P of a packed token."""
    return obs_size + num_features * (4 if as_bytes else 1) + 1


def pack_window(obs: np.ndarray, features: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Packs a stretch of steps.

    Args:
        obs: (K, ...), uint8 or anything that float32 can hold.
        features: Previous-action and -reward features, (K, F), float32.
        valid: Which steps are real, (K,).

    Returns:
        (K, P), uint8 if `obs` is, else float32.
    """
    dtype = np.uint8 if obs.dtype == np.uint8 else np.float32
    if dtype == np.uint8:
        features = np.ascontiguousarray(features, np.float32).view(np.uint8)
    flat = obs.reshape(len(obs), -1).astype(dtype, copy=False)
    return np.concatenate(
        (flat, features.astype(dtype, copy=False), valid[:, None].astype(dtype)), 1
    )


def unpack_window(
    packed: Tensor, obs_shape: tuple[int, ...], num_features: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Undoes `pack_window` for a batch.

    Args:
        packed: (..., K, P).
        obs_shape: Shape of one observation.
        num_features: Features F of one step.

    Returns:
        Observations (..., K, *obs_shape), features (..., K, F) and validity (..., K).

    Raises:
        ValueError: If P does not fit the shapes.
    """
    obs_size = int(np.prod(obs_shape))
    as_bytes = packed.dtype == torch.uint8
    expected = packed_size(obs_size, num_features, as_bytes=as_bytes)
    if packed.shape[-1] != expected:
        raise ValueError(
            f"A window's tokens must have size {expected} (observation {obs_shape}, {num_features} "
            f"features, 1 validity flag), got {tuple(packed.shape)}. Observations reach a window "
            "encoder through the connectors that `use_attention(config)` adds; call it last."
        )
    obs = packed[..., :obs_size].unflatten(-1, obs_shape)
    features = packed[..., obs_size:-1]
    if as_bytes:
        features = features.contiguous().view(torch.float32)
    return obs, features, packed[..., -1] > 0
