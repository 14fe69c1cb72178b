"""Reads streams of replayed runs the slow way: one window for each output."""

import numpy as np
import torch

from rllib_attention.encoder.packed_window import unpack_tokens


def as_windows(packed, context: int) -> torch.Tensor:
    """Turns a stream (B, K, P) of float32 tokens into windows (B, C + 1, P)."""
    packed = torch.as_tensor(np.asarray(packed))
    tokens = packed.flatten(0, 1)
    windows = torch.zeros(len(packed), context + 1, packed.shape[-1])
    row, first = 0, 0
    for i, tag in enumerate(tokens[:, -1].long().tolist()):
        first = i if tag & 4 else first
        if tag & 3 == 2:
            seen = tokens[max(first, i - context) : i + 1].clone()
            seen[:, -1] = 1
            windows[row, context + 1 - len(seen) :] = seen
            row += 1
    assert row == len(packed)
    return windows


def read_windows(packed, context: int, obs_shape: tuple, prev_size: int) -> list[tuple]:
    """Returns observations and previous inputs of each row's real steps, of streams or windows."""
    packed = torch.as_tensor(np.asarray(packed))
    if (packed[..., -1].long() & ~8).max() > 1:  # 8 marks next observations, of windows too
        packed = as_windows(packed, context)
    obs, prev, tags = (x.numpy() for x in unpack_tokens(packed, obs_shape, prev_size))
    return [(obs[row][real], prev[row][real]) for row, real in enumerate(tags > 0)]
