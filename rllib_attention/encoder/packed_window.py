"""The window path's observation: time steps packed into the tokens of one tensor.

RLlib's DQN, SAC and their kin hand nothing but `obs` to their encoders, and TQC and CQL expect it
to be one tensor with a row for each transition. So each token is one flat vector
`[observation | features | tag]`. It keeps the observation's type if that is uint8: float32 features
and tags then travel as their bytes. A row is a window of its own, whose tokens have tag 1 where
they are real and 0 where they are padding, or a part of a stream of runs (`packed_runs.py`).
Shapes: N tokens, P packed size of a token, F features.
"""

import numpy as np
import torch
from torch import Tensor


def packed_size(obs_size: int, num_features: int, *, as_bytes: bool) -> int:
    """Returns the size P of a packed token."""
    return obs_size + (num_features + 1) * (4 if as_bytes else 1)


def pack_tokens(obs: np.ndarray, features: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Packs time steps.

    Args:
        obs: (N, ...), uint8 or anything that float32 can hold.
        features: Previous-action and -reward features, (N, F), float32.
        tags: What each token is, (N,), whole numbers below 2^24.

    Returns:
        (N, P), uint8 if `obs` is, else float32.
    """
    extra = np.concatenate((features, tags[:, None]), 1, dtype=np.float32)
    flat = obs.reshape(len(obs), -1)
    if obs.dtype == np.uint8:
        return np.concatenate((flat, extra.view(np.uint8)), 1)
    return np.concatenate((flat, extra), 1, dtype=np.float32)


def tags_of(packed: np.ndarray) -> np.ndarray:
    """Returns the tags of packed tokens, (..., P) → (...)."""
    if packed.dtype == np.uint8:
        packed = packed[..., -4:].copy().view(np.float32)
    return packed[..., -1].astype(np.int64)


def unpack_tokens(
    packed: Tensor, obs_shape: tuple[int, ...], num_features: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Undoes `pack_tokens` for a batch.

    Args:
        packed: (..., P).
        obs_shape: Shape of one observation.
        num_features: Features F of one step.

    Returns:
        Observations (..., *obs_shape), features (..., F) and tags (...).

    Raises:
        ValueError: If P does not fit the shapes.
    """
    obs_size = int(np.prod(obs_shape))
    as_bytes = packed.dtype == torch.uint8
    expected = packed_size(obs_size, num_features, as_bytes=as_bytes)
    if packed.shape[-1] != expected:
        raise ValueError(
            f"A window's tokens must have size {expected} (observation {obs_shape}, {num_features} "
            f"features, 1 tag), got {tuple(packed.shape)}. Observations reach a window encoder "
            "through the connectors that `use_attention(config)` adds; call it last."
        )
    obs, extra = packed[..., :obs_size].unflatten(-1, obs_shape), packed[..., obs_size:]
    if as_bytes:
        # A copy: bytes that begin within a float's four cannot be viewed as one.
        extra = extra.clone(memory_format=torch.contiguous_format).view(torch.float32)
    return obs, extra[..., :-1], extra[..., -1]
