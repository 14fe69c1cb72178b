"""The model in pure torch: imports without Ray."""

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.block import Block
from rllib_attention.nn.context_step import ContextStep
from rllib_attention.nn.feed_forward import FeedForward
from rllib_attention.nn.gates import Gate, GRUGate, ResidualGate
from rllib_attention.nn.kv_cache import KVCache
from rllib_attention.nn.masks import AttentionMask, BlockedMask, row_mask
from rllib_attention.nn.no_position import NoPosition
from rllib_attention.nn.packing import PackedLayout
from rllib_attention.nn.relative import RelativeBias, RelativePosition
from rllib_attention.nn.rings import Rings, StepIndex
from rllib_attention.nn.rotary import RecencyPosition, RotaryPosition
from rllib_attention.nn.sending import may_vary, send
from rllib_attention.nn.stepper import Stepper
from rllib_attention.nn.transformer import Transformer
from rllib_attention.nn.views import PackedView, PrefillView, RecordedView, RowsView, View

__all__ = [
    "AttentionMask",
    "Block",
    "BlockedMask",
    "ContextStep",
    "FeedForward",
    "GRUGate",
    "Gate",
    "KVCache",
    "MultiHeadAttention",
    "NoPosition",
    "PackedLayout",
    "PackedView",
    "PrefillView",
    "RecencyPosition",
    "RecordedView",
    "RelativeBias",
    "RelativePosition",
    "ResidualGate",
    "Rings",
    "RotaryPosition",
    "RowsView",
    "StepIndex",
    "Stepper",
    "Transformer",
    "View",
    "may_vary",
    "row_mask",
    "send",
]
