"""The insides of RLlib's four episode replay buffers (`rllib/utils/replay_buffers/`).

A module ID chooses a module's part of a multi-agent buffer; without one, the buffer is of a single
agent. Leaves are those of the segment trees that prioritised buffers have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer
    from ray.rllib.utils.typing import ModuleID


def num_stored_steps(buffer: EpisodeReplayBuffer) -> int:
    """Return the env steps that a buffer compares with its capacity before it evicts.

    Public: `get_num_timesteps()`, which counts what can be sampled instead.

    Args:
        buffer: The buffer.
    """
    return buffer._num_timesteps


def sample_indices(buffer: EpisodeReplayBuffer, module_id: ModuleID | None = None) -> list[tuple]:
    """Return all that can be sampled.

    As (episode, step, leaf), or (episode, agent, step, leaf) in multi-agent buffers; uniform ones
    have no leaves. Episodes are counted from the first one ever stored, of which
    `get_num_episodes_evicted()` are gone.

    Args:
        buffer: The buffer.
        module_id: See the top of this file.
    """
    return buffer._indices if module_id is None else buffer._module_to_indices[module_id]


def segment_trees(
    buffer: EpisodeReplayBuffer, module_id: ModuleID | None = None
) -> tuple[Any, Any]:
    """Return a prioritised buffer's trees of priorities: for their sum, for their minimum.

    Args:
        buffer: The buffer.
        module_id: See the top of this file.
    """
    if module_id is None:
        return buffer._sum_segment, buffer._min_segment
    return buffer._module_to_sum_segment[module_id], buffer._module_to_min_segment[module_id]


def position_of_leaf(buffer: EpisodeReplayBuffer, module_id: ModuleID | None = None) -> dict:
    """Return where in `sample_indices` each leaf of a prioritised buffer's trees stands.

    Args:
        buffer: The buffer.
        module_id: See the top of this file.
    """
    if module_id is None:
        return buffer._tree_idx_to_sample_idx
    return buffer._module_to_tree_idx_to_sample_idx[module_id]


def set_last_sampled(
    buffer: EpisodeReplayBuffer, leaves: list[int], module_id: ModuleID | None = None
) -> None:
    """Set whose priorities the next `update_priorities` of a prioritised buffer brings.

    Args:
        buffer: The buffer.
        leaves: Leaves of its trees.
        module_id: See the top of this file.
    """
    if module_id is None:
        buffer._last_sampled_indices = leaves
    else:
        buffer._module_to_last_sampled_indices[module_id] = leaves


def update_sample_metrics(buffer: EpisodeReplayBuffer, counts: dict[str, Any]) -> None:
    """Log what a call of `sample` has drawn.

    Args:
        buffer: The buffer.
        counts: The arguments of RLlib's `_update_sample_metrics`.
    """
    buffer._update_sample_metrics(**counts)


def restore_sample_indices(buffer: EpisodeReplayBuffer) -> None:
    """Complete the restored state of `MultiAgentPrioritizedEpisodeReplayBuffer`.

    Its `set_state` leaves one index out, which the first eviction after a restore reads.

    Args:
        buffer: The buffer, after `set_state`.
    """
    buffer._sample_idx_to_tree_idx = {
        sample_index: tree_index
        for tree_index, sample_index in buffer._tree_idx_to_sample_idx.items()
    }
