"""Chunks that V-trace can work with (APPO, IMPALA).

RLlib computes V-trace within each row of the train batch: the recursion restarts at each row, and a
row that ends in mid-fragment takes its bootstrap from the row behind it. So the best chunk is a
whole fragment and its artificial last step.
"""

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention.log import get_logger
from rllib_attention.new_stack.chunk_length import fragment_length
from rllib_attention.search_space import known_setting

logger = get_logger(__name__)


def check_vtrace(config: AlgorithmConfig, max_seq_len: int) -> None:
    """Checks that no row's bootstrap is lost between minibatches.

    Args:
        config: The config of an algorithm that computes V-trace.
        max_seq_len: The chunk length.

    Raises:
        ValueError: If minibatches cut fragments, or RLlib cannot shuffle what aggregator actors
            build.
    """
    _check_shuffling(config)
    fragment = fragment_length(config)
    if fragment is None or max_seq_len > fragment:
        return
    length = fragment + 1
    fix = f"`use_attention(config, max_seq_len={length})`"
    num_epochs = known_setting(config, "num_epochs") or 1
    if known_setting(config, "minibatch_size") is not None or num_epochs > 1:
        raise ValueError(
            f"`max_seq_len` must be at least {length}, one fragment and its bootstrap step, when "
            "V-trace is computed on minibatches (`minibatch_size` or `num_epochs` is set), got "
            f"{max_seq_len}: a fragment's last chunks may be in another minibatch. Use {fix}."
        )
    logger.warning(
        "V-trace restarts every %d steps, since `max_seq_len` is below a fragment's %d. Use %s.",
        max_seq_len,
        length,
        fix,
    )


def _check_shuffling(config: AlgorithmConfig) -> None:
    num_epochs = known_setting(config, "num_epochs") or 1
    shuffles = known_setting(config, "shuffle_batch_per_epoch") and num_epochs > 1
    if shuffles and config.num_aggregator_actors_per_learner:
        raise ValueError(
            "RLlib cannot shuffle the chunks that aggregator actors build, got "
            "`shuffle_batch_per_epoch=True` and `num_aggregator_actors_per_learner="
            f"{config.num_aggregator_actors_per_learner}`. Use "
            "`config.training(shuffle_batch_per_epoch=False)` or "
            "`config.learners(num_aggregator_actors_per_learner=0)`."
        )
