"""Counts for the metrics that RLlib's replay buffers log about a sample."""

from collections import Counter, defaultdict
from typing import Any

from ray.rllib.core import DEFAULT_AGENT_ID
from ray.rllib.utils.typing import AgentID, ModuleID

from rllib_attention.new_stack.replay_buffers.timeline import Run


class SampleMetrics:
    """Counts what one call of `sample` has drawn.

    Args:
        size: Transitions in the sample, of each module.
    """

    def __init__(self, size: int):
        self._size, self._num_steps = size, 0
        self._resamples: dict[str, Counter] = {"agent": Counter(), "module": Counter()}
        self._steps: dict[str, Counter] = {"agent": Counter(), "module": Counter()}
        self._spans: dict[str, Counter] = {"agent": Counter(), "module": Counter()}
        self._unique: dict[tuple, set] = defaultdict(set)
        self._episodes: dict[tuple, set] = defaultdict(set)

    def count_resample(self, module_id: ModuleID, agent_id: AgentID | None) -> None:
        """Counts a draw that was refused, as fewer than `n_step` steps followed it."""
        self._resamples["agent"][_named(agent_id)] += 1
        self._resamples["module"][module_id] += 1

    def count(self, runs: list[Run], module_id: ModuleID) -> None:
        """Counts the runs of a module."""
        for place, _, start, length, n_step in runs:
            steps = [(place, step) for step in range(start, start + length)]
            for key in (("agent", _named(place[1])), ("module", module_id)):
                self._steps[key[0]][key[1]] += length
                self._spans[key[0]][key[1]] += length * n_step
                self._unique[key].update(steps)
                self._episodes[key].add(place)

    def as_dict(self) -> dict[str, Any]:
        """Returns the arguments of RLlib's `_update_sample_metrics`."""
        num_steps = sum(self._steps["module"].values())
        totals = {
            "num_env_steps_sampled": num_steps,
            "num_episodes_per_sample": self._num_unique(self._episodes),
            "num_env_steps_per_sample": self._num_unique(self._unique),
            "sampled_n_step": sum(self._spans["module"].values()) / num_steps,
            "num_resamples": sum(self._resamples["module"].values()),
        }
        return totals | self._by("agent") | self._by("module")

    def _num_unique(self, sets: dict[tuple, set]) -> int:
        return sum(len(found) for (kind, _), found in sets.items() if kind == "module")

    def _by(self, kind: str) -> dict[str, Any]:
        steps, spans = self._steps[kind], self._spans[kind]
        return {
            f"{kind}_to_num_steps_sampled": dict(steps),
            f"{kind}_to_num_episodes_per_sample": {
                key: len(self._episodes[kind, key]) for key in steps
            },
            f"{kind}_to_num_steps_per_sample": {key: len(self._unique[kind, key]) for key in steps},
            f"{kind}_to_sampled_n_step": {key: spans[key] / steps[key] for key in steps},
            f"{kind}_to_num_resamples": {key: self._resamples[kind][key] for key in steps},
        }


def _named(agent_id: AgentID | None) -> AgentID:
    """Returns the key of RLlib's metrics. An agent's own id may be 0."""
    return DEFAULT_AGENT_ID if agent_id is None else agent_id
