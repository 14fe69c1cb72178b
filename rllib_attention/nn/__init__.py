"""The model in pure torch: imports without Ray."""

from rllib_attention.nn.attention import MultiHeadAttention
from rllib_attention.nn.block import Block
from rllib_attention.nn.feed_forward import FeedForward
from rllib_attention.nn.gates import GRUGate, ResidualGate
from rllib_attention.nn.kv_cache import KVCache, StepIndex
from rllib_attention.nn.layout import AttentionMask, BlockedMask, PackedLayout, row_mask
from rllib_attention.nn.positions import (
    NoPosition,
    RecencyPosition,
    RelativePosition,
    RotaryPosition,
)
from rllib_attention.nn.stepper import Stepper
from rllib_attention.nn.transformer import Transformer

__all__ = [
    "AttentionMask",
    "Block",
    "BlockedMask",
    "FeedForward",
    "GRUGate",
    "KVCache",
    "MultiHeadAttention",
    "NoPosition",
    "PackedLayout",
    "RecencyPosition",
    "RelativePosition",
    "ResidualGate",
    "RotaryPosition",
    "StepIndex",
    "Stepper",
    "Transformer",
    "row_mask",
]
