"""Which past steps an agent attended to, as numbers and as pictures."""

from rllib_attention.inspection.callback import AttentionMapCallback
from rllib_attention.inspection.plot import plot_attention
from rllib_attention.inspection.record import AttentionRecord
from rllib_attention.inspection.recording import record_attention

__all__ = ["AttentionMapCallback", "AttentionRecord", "plot_attention", "record_attention"]
