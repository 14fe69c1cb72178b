"""Turns a replay buffer that RLlib has built into one whose samples carry their history."""

from typing import Any

from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)

from rllib_attention.new_stack.replay_buffers.buffers import (
    HistoryEpisodeReplayBuffer,
    HistoryMultiAgentEpisodeReplayBuffer,
    HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
    HistoryPrioritizedEpisodeReplayBuffer,
    RunLen,
    check_history_len,
    check_run_len,
)

UPGRADES: dict[type[EpisodeReplayBuffer], type[EpisodeReplayBuffer]] = {
    EpisodeReplayBuffer: HistoryEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer: HistoryPrioritizedEpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer: HistoryMultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer: HistoryMultiAgentPrioritizedEpisodeReplayBuffer,
}
"""RLlib's buffer classes and the subclass that each is upgraded to."""


def upgrade_replay_buffer(
    buffer: Any, *, history_len: int, run_len: RunLen = 1, num_shards: int = 1
) -> EpisodeReplayBuffer:
    """Turns a built RLlib episode replay buffer into one that samples runs, in place.

    RLlib's algorithms accept only the names of RLlib's own buffers in `replay_buffer_config`, so
    the built buffer has to change its class. Call this from an `on_algorithm_init` callback with
    `algorithm.local_replay_buffer`. What is stored stays. A buffer that has been upgraded before
    gets the new options.

    Args:
        buffer: One of RLlib's four episode replay buffers.
        history_len: Number of steps before each run to return.
        run_len: Transitions of a run; or by module, 1 for those that are left out.
        num_shards: Number of learners that share a sample.

    Returns:
        The same `buffer` object.

    Raises:
        ValueError: If `history_len` or `run_len` is not an int or is too small, or if `buffer` is
            of any other type (a user's subclass, an old API stack buffer, None).
    """
    check_history_len(history_len)
    check_run_len(run_len)
    if type(buffer) in UPGRADES:
        buffer.__class__ = UPGRADES[type(buffer)]
    elif type(buffer) not in UPGRADES.values():
        accepted = ", ".join(accepted.__name__ for accepted in UPGRADES)
        raise ValueError(
            f"Cannot add histories to a replay buffer of type {type(buffer).__name__}. Accepted "
            f"are RLlib's own {accepted} (not subclasses of them). Call "
            '`config.training(replay_buffer_config={"type": "EpisodeReplayBuffer"})`.'
        )
    buffer.set_runs(history_len, run_len, num_shards)
    return buffer
