"""Settings of RLlib that must fit the options of attention; checked before and after building."""

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention.config import AttentionConfig
from rllib_attention.log import get_logger
from rllib_attention.new_stack.algorithms import AlgorithmTraits, ChunkRule, DataPath
from rllib_attention.new_stack.kl_noise import KLNoiseMixin
from rllib_attention.new_stack.offline import OfflineSampling, check_offline_data
from rllib_attention.new_stack.replay_buffers import check_replay_config, check_run_length
from rllib_attention.new_stack.vtrace_checks import check_vtrace
from rllib_attention.search_space import known_setting

logger = get_logger(__name__)

# Up to this dropout RLlib's adaptive KL penalty was seen to keep its size.
_QUIET_DROPOUT = 0.05


def check_settings(
    config: AlgorithmConfig,
    traits: AlgorithmTraits,
    candidates: list[AttentionConfig],
    offline: OfflineSampling | None,
) -> None:
    """Checks a config's settings. Those that are left to Tune are checked in the trial.

    Args:
        config: The config.
        traits: What is special to the algorithm.
        candidates: The options, each with a `max_seq_len`; several in a sweep.
        offline: How recorded episodes are sampled, None if there are none.

    Raises:
        ImportError: If recorded episodes cannot be read, because msgpack-numpy is missing.
        ValueError: If a setting cannot work with attention.
    """
    if offline is not None:
        history_len = max(attention.history_len for attention in candidates)
        check_offline_data(config, offline, traits, history_len)
    elif traits.replay:
        _check_replay(config)
    lengths = [attention.max_seq_len for attention in candidates if attention.max_seq_len]
    if traits.chunk_rule is ChunkRule.TRANSITION:
        _check_single(config, max(lengths))
    if traits.chunk_rule is ChunkRule.RUN:
        check_run_length(config, max(lengths))
    if traits.vtrace:
        check_vtrace(config, min(lengths))
    if traits.data_path is DataPath.SEQUENCE:
        _check_minibatch(config, max(lengths))


def warn_of_dropout_in_kl(config: AlgorithmConfig, options: list[AttentionConfig]) -> None:
    """Warns if dropout would make RLlib's adaptive KL penalty grow without end.

    That is so where no `KLNoiseMixin` takes the noise out: in APPO, and with a learner class that
    was set after `use_attention`.

    Args:
        config: The config.
        options: The options of all modules with attention.
    """
    penalised = getattr(config, "use_kl_loss", False) and config.kl_coeff
    penalised = penalised and not issubclass(config.learner_class, KLNoiseMixin)
    rates = (attention.for_path(windowed=False).dropout for attention in options)
    highest = max(rates, default=0.0)
    if penalised and highest > _QUIET_DROPOUT:
        logger.warning(
            "dropout=%s makes noise that the adaptive KL penalty takes for a change of the policy: "
            "its coefficient may grow until nothing is learned. Use "
            "`config.training(use_kl_loss=False)`, or a dropout of at most %s.",
            highest,
            _QUIET_DROPOUT,
        )


def rounds_to_nothing(num_chunks: int, max_seq_len: int) -> bool:
    """Returns whether RLlib finds no chunk for a minibatch of `max_seq_len` steps.

    RLlib's `MiniBatchCyclicIterator` takes the minibatch's share of the batch's chunks, in floating
    point numbers: of 49 full chunks that is a little less than one for a minibatch of one.

    Args:
        num_chunks: Chunks of the train batch, all of them full.
        max_seq_len: Steps of a chunk, and of the minibatch.
    """
    return int(num_chunks * (max_seq_len / (num_chunks * max_seq_len))) == 0


def _check_single(config: AlgorithmConfig, max_seq_len: int) -> None:
    if max_seq_len != 1:
        raise ValueError(
            f"`max_seq_len` must be 1 for {type(config).__name__}, which derives from no algorithm "
            f"of RLlib that attention knows, got {max_seq_len}: whether its loss keeps the rows of "
            "a run together is not known. Use `use_attention(config, max_seq_len=1)`."
        )


def _check_replay(config: AlgorithmConfig) -> None:
    buffer_config = known_setting(config, "replay_buffer_config")
    if buffer_config:
        n_step = known_setting(config, "n_step") or 1
        check_replay_config(buffer_config, n_step, multi_agent=config.is_multi_agent)


def _check_minibatch(config: AlgorithmConfig, max_seq_len: int) -> None:
    size = known_setting(config, "minibatch_size")
    smallest = max_seq_len + _some_round_to_nothing(config, max_seq_len)
    if size is not None and size < smallest:
        other = f" or `use_attention(config, max_seq_len={size - 1})`" if size > 1 else ""
        raise ValueError(
            f"`minibatch_size` must be at least {smallest} with `max_seq_len` {max_seq_len}, since "
            f"a minibatch is made of whole chunks, got {size}. Use "
            f"`config.training(minibatch_size={smallest})`{other}."
        )


def _some_round_to_nothing(config: AlgorithmConfig, max_seq_len: int) -> bool:
    """Returns whether a train batch may have a number of chunks that `rounds_to_nothing`."""
    if config.is_multi_agent:  # a module gets the steps of any number of agents
        return True
    num_steps = known_setting(config, "train_batch_size_per_learner") or 0
    # Each episode brings one artificial step beside its real ones, of which a full chunk has some.
    most = num_steps // max(max_seq_len - 1, 1) + 1
    return any(rounds_to_nothing(num_chunks, max_seq_len) for num_chunks in range(1, most + 1))
