"""Connector pieces: the context of each step, for rollouts and for training."""

from rllib_attention.new_stack.connectors.chunks import AddContextToTrainBatch
from rllib_attention.new_stack.connectors.rollout import AddRolloutContext
from rllib_attention.new_stack.connectors.vtrace_bootstrap import BootstrapVTraceAtFragmentEnds
from rllib_attention.new_stack.connectors.windows import AddWindowsToTrainBatch

__all__ = [
    "AddContextToTrainBatch",
    "AddRolloutContext",
    "AddWindowsToTrainBatch",
    "BootstrapVTraceAtFragmentEnds",
]
