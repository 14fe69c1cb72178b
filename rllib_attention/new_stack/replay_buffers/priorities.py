"""Priorities of the transitions of a prioritised replay buffer, by episode and step.

RLlib keeps priorities in the leaves of a tree, and the leaf of each transition in a list that is in
order of arrival. Runs need the leaves of an episode's consecutive steps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rllib_attention.new_stack.replay_buffers.timeline import Run


class Leaves:
    """The leaves of each stored episode's transitions."""

    def __init__(self) -> None:
        self._by_place: dict[tuple, list[int]] = {}
        self._num_known = self._num_evicted = 0

    def update(self, indices: list[tuple], num_evicted: int) -> None:
        """Follows what RLlib's buffer has added and evicted since the last call.

        Args:
            indices: The buffer's list of (episode, ..., leaf), or (episode, agent, ..., leaf).
            num_evicted: Number of episodes evicted so far, from which on episodes are counted.
        """
        if num_evicted > self._num_evicted:
            for key in [key for key in self._by_place if key[0] < num_evicted]:
                self._num_known -= len(self._by_place.pop(key))
            self._num_evicted = num_evicted
        for index, *agent_id, _, leaf in indices[self._num_known :]:
            self._by_place.setdefault((index, *(agent_id or [None])), []).append(leaf)
        self._num_known = len(indices)

    def of(self, runs: Sequence[Run], num_evicted: int) -> list[int]:
        """Returns the leaves of the transitions of runs.

        Args:
            runs: The runs.
            num_evicted: As for `update`.
        """
        leaves: list[int] = []
        for (index, agent_id), _, start, length, _ in runs:
            known = self._by_place[index + num_evicted, agent_id]
            leaves += known[start : start + length]
        return leaves


def run_weights(leaves: Sequence[int], size: int, sums: Any, lowest: float, beta: float) -> Any:
    """Returns the importance weights of the transitions in a slot, (T,).

    The transition at distance d from another one lies in T - |d| of the T slots that a draw of the
    other one may give. So transition i is at a given place of the slot with probability

        P(i) = sum over |d| < T of p(i + d) (T - |d|) / T²,   p: its priority's share of all.

    As in RLlib's buffer, weights are (N P(i))^-β over their largest possible value (N p_min)^-β:
    P(i) is a mean of p, and no less than the smallest p. With T = 1 they are RLlib's.

    Args:
        leaves: Of the slot's transitions, and of T - 1 before and after them, (3T - 2,).
        size: Transitions T in the slot.
        sums: RLlib's sum tree.
        lowest: The smallest priority of all.
        beta: Exponent β.
    """
    offset = sums.capacity
    priorities = np.array([sums.value[offset + leaf] for leaf in leaves])
    kernel = (size - np.abs(np.arange(1 - size, size))) / size**2
    return (np.convolve(priorities, kernel, "valid") / lowest) ** -beta
