"""Replay buffers whose samples carry the history that an attention window needs."""

from rllib_attention.replay_buffers.buffers import (
    HistoryEpisodeReplayBuffer,
    HistoryMultiAgentEpisodeReplayBuffer,
    HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
    OfflineHistoryBuffer,
)
from rllib_attention.replay_buffers.history import HISTORY
from rllib_attention.replay_buffers.upgrade import upgrade_replay_buffer
from rllib_attention.replay_buffers.validation import check_replay_config

__all__ = [
    "HISTORY",
    "HistoryEpisodeReplayBuffer",
    "HistoryMultiAgentEpisodeReplayBuffer",
    "HistoryMultiAgentPrioritizedEpisodeReplayBuffer",
    "HistoryPrioritizedEpisodeReplayBuffer",
    "OfflineHistoryBuffer",
    "check_replay_config",
    "upgrade_replay_buffer",
]
