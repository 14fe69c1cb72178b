"""What happens when an algorithm with attention is built: last checks, replay, one log line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm

from rllib_attention.new_stack.algorithms import DataPath, algorithm_traits, trains_offline
from rllib_attention.new_stack.built_checks import check_built
from rllib_attention.new_stack.module_specs import module_options
from rllib_attention.new_stack.replay_buffers import upgrade_replay_buffer
from rllib_attention.new_stack.summary import log_summary


@dataclass(frozen=True)
class PrepareAlgorithm:
    """RLlib's callback `on_algorithm_init` of `use_attention`.

    It checks the final config, lets the replay buffer sample runs with their past (RLlib accepts
    replay buffers by a few literal names only, hence here), and says what was built.

    Attributes:
        module_ids: The modules that were to get attention; None for all.
    """

    module_ids: frozenset[str] | None

    def joined_with(self, other: PrepareAlgorithm) -> PrepareAlgorithm:
        """Returns one callback for the modules of both.

        Args:
            other: That of another call of `use_attention`.
        """
        if self.module_ids is None or other.module_ids is None:
            return PrepareAlgorithm(None)
        return PrepareAlgorithm(self.module_ids | other.module_ids)

    def __call__(self, algorithm: Algorithm, **kwargs: Any) -> None:
        """Prepares a built algorithm.

        Args:
            algorithm: The algorithm.
            **kwargs: Whatever else RLlib hands to callbacks.

        Raises:
            ValueError: If the config was changed, after `use_attention`, to something that cannot
                work with it.
        """
        check_built(algorithm, self.module_ids)
        _upgrade_replay(algorithm)
        log_summary(algorithm)


def _upgrade_replay(algorithm: Algorithm) -> None:
    config = algorithm.config
    # CQL has a replay buffer too, but samples from recorded episodes.
    if algorithm_traits(config).data_path is not DataPath.WINDOW or trains_offline(config):
        return
    buffer = getattr(algorithm, "local_replay_buffer", None)
    if buffer is not None:
        options = module_options(config)
        upgrade_replay_buffer(
            buffer,
            history_len=max(attention.history_len for attention in options.values()),
            run_len={mid: attention.max_seq_len or 1 for mid, attention in options.items()},
            num_shards=max(1, config.num_learners),
        )
