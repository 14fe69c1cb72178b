"""How long training chunks are where the user leaves that to us."""

import dataclasses

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.impala import IMPALAConfig

from rllib_attention.config import DEFAULT_CHUNK
from rllib_attention.search_space import SearchSpace, known_setting


def with_chunk_length(config: AlgorithmConfig, space: SearchSpace) -> SearchSpace:
    """Returns the options with a `max_seq_len`, if there is none yet.

    Long chunks are cheap: each one computes its C steps of context anew. But a minibatch is made of
    whole chunks, and one of several episodes has less noise. So a chunk is as long as twice its
    context, as long as two of them fit into a minibatch. APPO and IMPALA take whole fragments: see
    `vtrace.py`.

    Args:
        config: The algorithm's config.
        space: The options; a `max_seq_len` that is given or searched stays.
    """
    if space.fixed.max_seq_len is not None or "max_seq_len" in space.searched:
        return space
    fragment = fragment_length(config)
    if isinstance(config, IMPALAConfig):
        length = DEFAULT_CHUNK if fragment is None else fragment + 1
    else:
        context = max(attention.context_len for attention in space.candidates())
        minibatch = known_setting(config, "minibatch_size")
        most = DEFAULT_CHUNK if minibatch is None else minibatch // 2
        length = max(1, min(most, max(DEFAULT_CHUNK, 2 * context)))
        length = length if fragment is None else min(length, fragment)
    return dataclasses.replace(space, fixed=space.fixed.replace(max_seq_len=length))


def fragment_length(config: AlgorithmConfig) -> int | None:
    """Returns the env steps of an episode fragment, None if that is not known.

    Args:
        config: The algorithm's config.
    """
    if config.batch_mode != "truncate_episodes" or config.is_offline:
        return None
    if known_setting(config, "rollout_fragment_length") is None:
        return None
    try:
        return config.get_rollout_fragment_length()
    except TypeError:
        return None  # it follows from a batch size that is a search space
