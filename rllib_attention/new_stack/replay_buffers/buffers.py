"""RLlib's four episode replay buffers, with runs of transitions and their past as samples.

Nothing of a past is stored: the buffers keep one observation per env step, as RLlib's do, and take
each run out of its stored episode when they sample (`timeline.py` says which ones).
"""

from typing import Any

from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.typing import ModuleID

from rllib_attention.compat import (
    position_of_leaf,
    restore_sample_indices,
    sample_indices,
    segment_trees,
    set_last_sampled,
)
from rllib_attention.new_stack.replay_buffers.multi_agent_runs import MultiAgentRunsMixin
from rllib_attention.new_stack.replay_buffers.prioritized_runs import PrioritizedRunsMixin
from rllib_attention.new_stack.replay_buffers.runs_mixin import RunsMixin
from rllib_attention.new_stack.replay_buffers.timeline import Run


class HistoryEpisodeReplayBuffer(RunsMixin, EpisodeReplayBuffer):
    """`EpisodeReplayBuffer` whose samples are runs with their past.

    Example:
        >>> import numpy as np
        >>> from ray.rllib.env.single_agent_episode import SingleAgentEpisode
        >>> from rllib_attention.new_stack.replay_buffers import HistoryEpisodeReplayBuffer
        >>> buffer = HistoryEpisodeReplayBuffer(capacity=100, history_len=2, run_len=4)
        >>> buffer.add(SingleAgentEpisode(
        ...     observations=[0, 1, 2, 3, 4], actions=[0, 1, 2, 3], rewards=[0.0, 1.0, 2.0, 3.0],
        ...     len_lookback_buffer=0, terminated=True,
        ... ))
        >>> [sampled] = buffer.sample(num_items=8, sample_episodes=True)
        >>> len(sampled), np.sort(sampled.get_actions()).tolist()
        (8, [0, 0, 1, 1, 2, 2, 3, 3])
    """

    def sample(self, *args: Any, sample_episodes: bool = False, **kwargs: Any) -> Any:
        """Samples as `RunsMixin.sample`, or arrays as RLlib's buffer does.

        Args:
            *args: Positional arguments of `sample`.
            sample_episodes: Whether to sample runs. Else, arrays of sequences without a past.
            **kwargs: Keyword arguments of `sample`.

        Returns:
            A list of `SampledRuns`, or a dict of arrays.
        """
        if not sample_episodes:
            return EpisodeReplayBuffer.sample(self, *args, **kwargs)
        return super().sample(*args, **kwargs)


class HistoryPrioritizedEpisodeReplayBuffer(PrioritizedRunsMixin, PrioritizedEpisodeReplayBuffer):
    """`PrioritizedEpisodeReplayBuffer` whose samples are runs with their past."""


class HistoryMultiAgentEpisodeReplayBuffer(MultiAgentRunsMixin, MultiAgentEpisodeReplayBuffer):
    """`MultiAgentEpisodeReplayBuffer` whose samples are runs with their agent's past."""


class HistoryMultiAgentPrioritizedEpisodeReplayBuffer(
    MultiAgentRunsMixin, PrioritizedRunsMixin, MultiAgentPrioritizedEpisodeReplayBuffer
):
    """`MultiAgentPrioritizedEpisodeReplayBuffer` whose samples are runs with their agent's past."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Args:
            state: The state of this buffer or of RLlib's.
        """
        super().set_state(state)
        restore_sample_indices(self)

    def _draw_index(self, module_id: ModuleID) -> tuple:
        return PrioritizedRunsMixin._draw_index(self, module_id)

    def _trees(self, module_id: ModuleID) -> tuple[Any, Any]:
        return segment_trees(self, module_id)

    def _indices_of(self, module_id: ModuleID) -> list[tuple]:
        return sample_indices(self, module_id)

    def _sample_index(self, module_id: ModuleID) -> dict[int, int]:
        return position_of_leaf(self, module_id)

    def _remember(self, runs: list[Run], module_id: ModuleID) -> None:
        MultiAgentRunsMixin._remember(self, runs, module_id)
        leaves = self._leaves_of(module_id).of(runs, self.get_num_episodes_evicted())
        set_last_sampled(self, leaves, module_id)
