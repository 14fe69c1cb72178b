"""How long the runs of a replayed batch are, and which lengths cannot work.

Transitions of a run are alike, so a batch of few runs teaches less than its size promises. Long
runs, on the other hand, are what makes attention cheap: each one brings a context of its own.
"""

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.util.debug import log_once

from rllib_attention.log import get_logger
from rllib_attention.search_space import known_setting

FEWEST_RUNS = 32
"""Runs in a batch below which learning suffered in experiments."""
_LONGEST_RUN = 32

logger = get_logger(__name__)


def run_length_that_pays(config: AlgorithmConfig) -> int:
    """Returns the default length of runs: as many transitions as leave enough runs in a batch.

    A longer one than 32 would save little more. Recorded data of several learners come in single
    transitions, see `check_run_length`.

    Args:
        config: The config of an algorithm that replays, or trains on recorded data.
    """
    size = known_setting(config, "train_batch_size_per_learner")
    if not size or _shares_recorded_data(config):
        return 1
    return max(1, min(_LONGEST_RUN, size // FEWEST_RUNS))


def check_run_length(config: AlgorithmConfig, run_len: int) -> None:
    """Checks the length of runs against the batch, the buffer and the learners.

    Args:
        config: The config.
        run_len: The length, `max_seq_len` of the options.

    Raises:
        ValueError: If runs are longer than a batch or than the replay buffer, or if recorded data
            are shared by several learners.
    """
    if run_len == 1:
        return
    size = known_setting(config, "train_batch_size_per_learner")
    if size is not None and run_len > size:
        raise ValueError(
            f"`max_seq_len` {run_len} must not exceed the batch of `train_batch_size_per_learner` "
            f"{size} transitions, which is made of runs of `max_seq_len`. Use "
            f"`config.training(train_batch_size_per_learner={FEWEST_RUNS * run_len})` or "
            f"`use_attention(config, max_seq_len={max(1, size // FEWEST_RUNS)})`."
        )
    buffer_config = known_setting(config, "replay_buffer_config") or {}
    capacity = buffer_config.get("capacity")
    if not config.is_offline and isinstance(capacity, int) and run_len > capacity:
        raise ValueError(
            f"`max_seq_len` {run_len} must not exceed the replay buffer's `capacity` of {capacity} "
            'steps. Use `config.training(replay_buffer_config={"capacity": 100_000, ...})`.'
        )
    if _shares_recorded_data(config):
        raise ValueError(
            f"`max_seq_len` must be 1 for recorded data and several learners, got {run_len}: Ray "
            "Data splits batches between learners wherever it likes, and the rows of a run make "
            "no sense alone. Use `use_attention(config, max_seq_len=1)` or "
            "`config.learners(num_learners=1)`."
        )
    is_few = size is not None and size < FEWEST_RUNS * run_len
    # The config is checked twice, when it is made and when the algorithm is built.
    if is_few and log_once(f"rllib_attention_few_runs_{size}_{run_len}"):
        logger.warning(
            "A batch of %d transitions has %d runs of `max_seq_len` %d. Transitions of a run are "
            "alike: with fewer than %d runs learning may suffer. Use "
            "`config.training(train_batch_size_per_learner=%d)` or "
            "`use_attention(config, max_seq_len=%d)`.",
            size,
            -(-size // run_len),
            run_len,
            FEWEST_RUNS,
            FEWEST_RUNS * run_len,
            max(1, size // FEWEST_RUNS),
        )


def _shares_recorded_data(config: AlgorithmConfig) -> bool:
    return bool(config.is_offline and config.num_learners > 1)
