"""Connector pieces: the context of each step, for rollouts and for training."""

from rllib_attention.connectors.rollout import AddRolloutContext
from rllib_attention.connectors.train import AddContextToTrainBatch, AddWindowsToTrainBatch
from rllib_attention.connectors.vtrace import BootstrapVTraceAtFragmentEnds

__all__ = [
    "AddContextToTrainBatch",
    "AddRolloutContext",
    "AddWindowsToTrainBatch",
    "BootstrapVTraceAtFragmentEnds",
]
