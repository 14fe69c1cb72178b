"""What recorded episodes need so that attention sees their true past (BC, MARWIL, CQL, IQL)."""

import importlib.util
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig

from rllib_attention.new_stack.algorithms import Path
from rllib_attention.new_stack.replay_buffers import OfflineChunkBuffer, OfflineHistoryBuffer
from rllib_attention.search_space import is_search_space, known_setting

_HISTORY_LEN = "history_len"


def is_offline(config: AlgorithmConfig) -> bool:
    """Returns whether an algorithm trains on recorded data."""
    return config.is_offline or isinstance(config, MARWILConfig | CQLConfig)


def set_offline_data(config: AlgorithmConfig, path: Path, history_len: int) -> None:
    """Sets how recorded episodes are sampled, where the user left that at its default.

    Episodes go through RLlib's `OfflinePreLearner`, which adds them to a buffer and samples from
    it. The sequence path samples chunks with a lookback; the window path samples transitions, whose
    past RLlib's buffer drops. What was sampled is never materialized, whatever the user's setting:
    it would be the same few chunks in each epoch, and windows take C + 1 times the memory.

    Args:
        config: The user's config, changed in place.
        path: The algorithm's path.
        history_len: Steps that attention looks back.
    """
    if not is_offline(config):
        return
    is_window = path is Path.WINDOW
    config.offline_data(materialize_mapped_data=False)
    if config.prelearner_buffer_class is None:
        buffer_class = OfflineHistoryBuffer if is_window else OfflineChunkBuffer
        config.offline_data(prelearner_buffer_class=buffer_class)
    if is_window:
        kwargs = {_HISTORY_LEN: history_len} | config.prelearner_buffer_kwargs
        config.offline_data(prelearner_buffer_kwargs=kwargs)


def check_offline_data(config: AlgorithmConfig, path: Path, history_len: int) -> None:
    """Checks that an offline algorithm reads episodes, and samples them with their past.

    Args:
        config: The user's config.
        path: The algorithm's path.
        history_len: Steps that attention looks back.

    Raises:
        ImportError: If recorded episodes cannot be read, because msgpack-numpy is missing.
        ValueError: If the config cannot work with attention.
    """
    if not is_offline(config):
        return
    _check_reading(config)
    if config.is_multi_agent:
        raise ValueError(
            "RLlib reads offline data of a single agent only, got a multi-agent config. Leave out "
            "`config.multi_agent(...)`."
        )
    if isinstance(config, CQLConfig):
        _check_cql(config)
    if path is Path.WINDOW:
        _check_buffer(config, history_len)


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
            "RLlib needs msgpack-numpy to read recorded episodes. Mend it with "
            "`pip install msgpack-numpy`."
        )


def _check_cql(config: CQLConfig) -> None:
    num_iters = config.dataset_num_iters_per_learner
    if is_search_space(num_iters):
        return
    if config.num_learners == 0 and (num_iters is None or num_iters < 2):
        raise ValueError(
            "`dataset_num_iters_per_learner` must be at least 2 for CQL with a local learner "
            f"(RLlib hands it a batch in place of an iterator otherwise), got {num_iters}. Use "
            "`config.offline_data(dataset_num_iters_per_learner=100)`."
        )


def _check_buffer(config: AlgorithmConfig, history_len: int) -> None:
    buffer_class = config.prelearner_buffer_class
    if not issubclass(buffer_class or object, OfflineHistoryBuffer):
        raise ValueError(
            "`prelearner_buffer_class` must be an OfflineHistoryBuffer, whose samples carry their "
            f"past, got {getattr(buffer_class, '__name__', buffer_class)!r}. Leave it to "
            "`use_attention`, or derive yours from "
            "`rllib_attention.new_stack.replay_buffers.OfflineHistoryBuffer`."
        )
    given: Any = config.prelearner_buffer_kwargs.get(_HISTORY_LEN)
    if given is None or given < history_len:
        raise ValueError(
            f"`prelearner_buffer_kwargs` must hold a `{_HISTORY_LEN}` of at least the "
            f"{history_len} steps that attention looks back, got {given}. Leave it to "
            "`use_attention`, or use "
            f'`config.offline_data(prelearner_buffer_kwargs={{"{_HISTORY_LEN}": {history_len}}})`.'
        )
    n_step = known_setting(config, "n_step")
    if n_step not in (None, 1):
        raise ValueError(
            f"`n_step` must be 1 for offline data, got {n_step}: RLlib's uniform replay "
            "buffer returns wrong n-step transitions at the end of an episode. Use "
            "`config.training(n_step=1)`."
        )
