"""Replay buffers whose samples carry the history that an attention window needs."""

from rllib_attention.new_stack.replay_buffers.buffers import (
    HistoryEpisodeReplayBuffer,
    HistoryMultiAgentEpisodeReplayBuffer,
    HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
)
from rllib_attention.new_stack.replay_buffers.config_checks import check_replay_config
from rllib_attention.new_stack.replay_buffers.offline import (
    OfflineChunkBuffer,
    OfflineHistoryBuffer,
)
from rllib_attention.new_stack.replay_buffers.run_length import (
    check_run_length,
    run_length_that_pays,
)
from rllib_attention.new_stack.replay_buffers.sampled_runs import SampledRuns
from rllib_attention.new_stack.replay_buffers.upgrade import upgrade_replay_buffer

__all__ = [
    "HistoryEpisodeReplayBuffer",
    "HistoryMultiAgentEpisodeReplayBuffer",
    "HistoryMultiAgentPrioritizedEpisodeReplayBuffer",
    "HistoryPrioritizedEpisodeReplayBuffer",
    "OfflineChunkBuffer",
    "OfflineHistoryBuffer",
    "SampledRuns",
    "check_replay_config",
    "check_run_length",
    "run_length_that_pays",
    "upgrade_replay_buffer",
]
