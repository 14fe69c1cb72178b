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
        state: Their context; lengths on a GPU are waited for.
    """
    num_steps = obs.shape[1]
    # Valid steps of the context, which is right-aligned, and of the chunk.
    before = _on_host(state.context_length)
    if state.chunk_length is None:
        within = np.full(len(obs), num_steps)
    else:
        within = _on_host(state.chunk_length)
    seen = (num_steps, obs.device, before.tobytes(), within.tobytes())
    layout = _layouts.get(state.context, seen)
    if layout is None:
        context = state.context.shape[1]
        with torch.inference_mode(False):
            layout = PackedLayout(
                context - before, context + within, context + num_steps, num_steps, obs.device
            )
        _layouts.put(state.context, layout, seen)
    return layout


def _on_host(lengths: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(lengths, Tensor):
        lengths = lengths.cpu().numpy()
    return lengths.astype(np.int64)
