"""Where the steps of chunks lie: worked out once for actor, critic and whoever else reads them.

Shapes: B batch, T time, C context.
"""

import numpy as np
import torch
from torch import Tensor

from rllib_attention.encoder.inputs import ChunkContext
from rllib_attention.encoder.tensor_memo import TensorMemo
from rllib_attention.nn import PackedLayout

_layouts = TensorMemo()


def chunk_layout(obs: Tensor, state: ChunkContext) -> PackedLayout:
    """Returns the layout of chunks and their context.

    It is kept as long as the context's observations live.

    Args:
        obs: The chunks' observations, (B, T, *obs).
        state: Their context.
    """
    lengths = [x for x in (state.context_length, state.chunk_length) if x is not None]
    if any(x.is_inference() for x in lengths):
        return _work_out(obs, state)  # nobody counts what is written to such tensors
    marks = [(x.data_ptr(), x._version, x.stride()) for x in lengths]
    seen = (obs.shape[:2], obs.device, *marks)
    known = _layouts.get(state.context, seen)
    if known is None:
        # The lengths are kept, too, so that no others can come to lie at their address.
        known = _work_out(obs, state), lengths
        _layouts.put(state.context, known, seen)
    return known[0]


def _work_out(obs: Tensor, state: ChunkContext) -> PackedLayout:
    num_steps, context = obs.shape[1], state.context.shape[1]
    # Valid steps of the context, which is right-aligned, and of the chunk.
    before = state.context_length.cpu().numpy()
    if state.chunk_length is None:
        within = np.full(len(obs), num_steps)
    else:
        within = state.chunk_length.cpu().numpy()
    with torch.inference_mode(False):
        return PackedLayout(
            context - before, context + within, context + num_steps, num_steps, obs.device
        )
