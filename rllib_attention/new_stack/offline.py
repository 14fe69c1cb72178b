"""What recorded episodes need so that attention sees their true past (BC, MARWIL, CQL, IQL)."""

import importlib.util
from dataclasses import dataclass
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention.new_stack.algorithms import AlgorithmTraits, DataPath
from rllib_attention.new_stack.replay_buffers import OfflineChunkBuffer, OfflineHistoryBuffer
from rllib_attention.search_space import is_search_space, known_setting

_HISTORY_LEN, _RUN_LEN = "history_len", "run_len"


@dataclass(frozen=True)
class OfflineSampling:
    """How RLlib's `OfflinePreLearner` samples what it has read: it goes through a buffer.

    Attributes:
        buffer_class: The buffer's class.
        buffer_kwargs: What it is built with.
    """

    buffer_class: Any
    buffer_kwargs: dict[str, Any]

    @classmethod
    def of(cls, config: AlgorithmConfig) -> "OfflineSampling":
        """Returns what a config says.

        Args:
            config: A config of the new API stack.
        """
        return cls(config.prelearner_buffer_class, config.prelearner_buffer_kwargs)

    def apply(self, config: AlgorithmConfig) -> None:
        """Puts it into a config.

        What was sampled is never materialized, whatever the user's setting: it would be the same
        few chunks in each epoch, and windows take C + 1 times the memory.

        Args:
            config: The config; changed in place.
        """
        config.offline_data(
            materialize_mapped_data=False,
            prelearner_buffer_class=self.buffer_class,
            prelearner_buffer_kwargs=self.buffer_kwargs,
        )


def offline_sampling(
    config: AlgorithmConfig, traits: AlgorithmTraits, history_len: int, run_len: int
) -> OfflineSampling:
    """Returns how recorded episodes are to be sampled where the user left that at its default.

    The sequence path samples chunks with a lookback; the window path samples transitions, whose
    past RLlib's buffer drops.

    Args:
        config: The user's config.
        traits: What is special to the algorithm.
        history_len: Steps that attention looks back.
        run_len: Transitions of a run; window path only.
    """
    given = OfflineSampling.of(config)
    if traits.data_path is DataPath.SEQUENCE:
        return OfflineSampling(given.buffer_class or OfflineChunkBuffer, given.buffer_kwargs)
    kwargs = {_HISTORY_LEN: history_len, _RUN_LEN: run_len} | given.buffer_kwargs
    return OfflineSampling(given.buffer_class or OfflineHistoryBuffer, kwargs)


def check_offline_data(
    config: AlgorithmConfig, sampling: OfflineSampling, traits: AlgorithmTraits, history_len: int
) -> None:
    """Checks that an offline algorithm reads episodes, and samples them with their past.

    Args:
        config: The config.
        sampling: How episodes are sampled.
        traits: What is special to the algorithm.
        history_len: Steps that attention looks back.

    Raises:
        ImportError: If recorded episodes cannot be read, because msgpack-numpy is missing.
        ValueError: If the config cannot work with attention.
    """
    _check_reading(config)
    if config.is_multi_agent:
        raise ValueError(
            "RLlib reads offline data of a single agent only, got the multi-agent "
            f"`policies` {sorted(config.policies)}. Leave out `config.multi_agent(...)`."
        )
    _check_dataset_iters(config, traits)
    if traits.data_path is DataPath.WINDOW:
        _check_buffer(sampling, history_len)
        _check_n_step(config)


def _check_reading(config: AlgorithmConfig) -> None:
    if not (config.input_read_episodes or config.input_read_sample_batches):
        raise ValueError(
            "Attention needs recorded episodes, since single transitions have no past: expected "
            "`input_read_episodes=True`, got False. Use `config.offline_data("
            "input_read_episodes=True)` on data that was recorded by `config.env_runners("
            'batch_mode="complete_episodes").offline_data(output=..., '
            "output_write_episodes=True)`."
        )
    if config.input_read_episodes and importlib.util.find_spec("msgpack_numpy") is None:
        raise ImportError(
            "RLlib needs msgpack-numpy to read recorded episodes (`input_read_episodes=True`), but "
            "it is not installed. Fix: `pip install msgpack-numpy`."
        )


def _check_dataset_iters(config: AlgorithmConfig, traits: AlgorithmTraits) -> None:
    num_iters, least = config.dataset_num_iters_per_learner, traits.min_dataset_iters
    if config.num_learners or least == 1 or is_search_space(num_iters):
        return
    if num_iters is None or num_iters < least:
        raise ValueError(
            f"`dataset_num_iters_per_learner` must be at least {least} for "
            f"{type(config).__name__} with a local learner (RLlib hands it a batch in place of an "
            f"iterator otherwise), got {num_iters}. Use "
            "`config.offline_data(dataset_num_iters_per_learner=100)`."
        )


def _check_buffer(sampling: OfflineSampling, history_len: int) -> None:
    buffer_class = sampling.buffer_class
    if not issubclass(buffer_class or object, OfflineHistoryBuffer):
        raise ValueError(
            "`prelearner_buffer_class` must be an OfflineHistoryBuffer, whose samples carry their "
            f"past, got {getattr(buffer_class, '__name__', buffer_class)!r}. Leave it to "
            "`use_attention`, or derive yours from "
            "`rllib_attention.new_stack.replay_buffers.OfflineHistoryBuffer`."
        )
    given = sampling.buffer_kwargs.get(_HISTORY_LEN)
    if given is None or given < history_len:
        raise ValueError(
            f"`prelearner_buffer_kwargs` must hold a `{_HISTORY_LEN}` of at least the "
            f"{history_len} steps that attention looks back, got {given}. Leave it to "
            "`use_attention`, or use "
            f'`config.offline_data(prelearner_buffer_kwargs={{"{_HISTORY_LEN}": {history_len}}})`.'
        )


def _check_n_step(config: AlgorithmConfig) -> None:
    n_step = known_setting(config, "n_step")
    if n_step not in (None, 1):
        raise ValueError(
            f"`n_step` must be 1 for offline data, got {n_step}: the losses of CQL and IQL "
            "discount by one step. Use `config.training(n_step=1)`."
        )
