"""Runs around transitions that were drawn by priority."""

from typing import Any

import numpy as np
from ray.rllib.utils.typing import ModuleID

from rllib_attention.compat import (
    position_of_leaf,
    sample_indices,
    segment_trees,
    set_last_sampled,
)
from rllib_attention.new_stack.replay_buffers.priorities import Leaves, run_weights
from rllib_attention.new_stack.replay_buffers.runs_mixin import RunsMixin
from rllib_attention.new_stack.replay_buffers.timeline import Place, Run, Timeline


class PrioritizedRunsMixin(RunsMixin):
    """What the two prioritised buffers share."""

    __slots__ = ()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Args:
            state: The state of this buffer or of RLlib's.
        """
        super().set_state(state)
        self.__dict__.pop("_leaves", None)

    def _leaves_of(self, module_id: ModuleID) -> Leaves:
        # Not made in `__init__`, which an upgraded buffer has behind it.
        by_module: dict = self.__dict__.setdefault("_leaves", {})
        leaves = by_module.setdefault(module_id, Leaves())
        leaves.update(self._indices_of(module_id), self.get_num_episodes_evicted())
        return leaves

    def _weights(
        self,
        module_id: ModuleID,
        timeline: Timeline,
        first: tuple[Place, int, int],
        count: int,
        beta: float,
    ) -> np.ndarray:
        place, start, n_step = first
        place, start = timeline.back(place, start, count - 1, n_step)
        around = timeline.walk(place, start, 3 * count - 2, n_step)
        leaves = self._leaves_of(module_id).of(around, self.get_num_episodes_evicted())
        sums, lowest = self._trees(module_id)
        return run_weights(leaves, count, sums, lowest.min(), beta)

    def _draw_index(self, module_id: ModuleID) -> tuple:
        sums, _ = self._trees(module_id)
        leaf = sums.find_prefixsum_idx(self.rng.random() * sums.sum())
        return self._indices_of(module_id)[self._sample_index(module_id)[leaf]][:-1]

    def _trees(self, module_id: ModuleID) -> tuple[Any, Any]:
        return segment_trees(self)

    def _indices_of(self, module_id: ModuleID) -> list[tuple]:
        return sample_indices(self)

    def _sample_index(self, module_id: ModuleID) -> dict[int, int]:
        return position_of_leaf(self)

    def _remember(self, runs: list[Run], module_id: ModuleID) -> None:
        leaves = self._leaves_of(module_id).of(runs, self.get_num_episodes_evicted())
        set_last_sampled(self, leaves)
