"""How long training chunks are: what the user says, else what pays for the algorithm."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention.config import DEFAULT_CHUNK
from rllib_attention.new_stack.algorithms import AlgorithmTraits, ChunkRule
from rllib_attention.new_stack.module_specs import given_max_seq_len
from rllib_attention.new_stack.replay_buffers import run_length_that_pays
from rllib_attention.search_space import SearchSpace, is_search_space, known_setting

_FIELD = "max_seq_len"

# Chunks in a minibatch: wanted, and where the context is long at least.
_CHUNKS, _LEAST_CHUNKS = 8, 2


def with_chunk_length(
    config: AlgorithmConfig, space: SearchSpace, traits: AlgorithmTraits, module_ids: Iterable[str]
) -> SearchSpace:
    """Returns the options with a `max_seq_len`.

    It is that of the options, else that of a module's `model_config`, else one that pays.

    Args:
        config: The user's config.
        space: The options.
        traits: What is special to the algorithm.
        module_ids: The modules that get attention.

    Raises:
        TypeError: If the `max_seq_len` of a `model_config` is not an int.
        ValueError: If options and `model_config` do not say the same, or modules differ.
    """
    given = _given_by_model_configs(config, module_ids)
    said = space.searched.get(_FIELD, space.fixed.max_seq_len)
    if given is not None and said not in (None, given):
        raise ValueError(
            f"`model_config` asks for max_seq_len={given}, but the options of `use_attention` for "
            f"max_seq_len={said}: expected the same. Use `use_attention(config, "
            f"max_seq_len={given})`, or leave it out of `config.rl_module(model_config=...)` and "
            "of the module's spec."
        )
    if said is not None:
        return space
    length = _length_that_pays(config, space, traits) if given is None else given
    if is_search_space(length):
        return dataclasses.replace(space, searched=space.searched | {_FIELD: length})
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


def _given_by_model_configs(config: AlgorithmConfig, module_ids: Iterable[str]) -> Any:
    by_module = {mid: given_max_seq_len(config, mid) for mid in module_ids}
    given = {mid: length for mid, length in by_module.items() if length is not None}
    lengths = list(given.values())
    if any(length != lengths[0] for length in lengths):
        raise ValueError(
            "One call of `use_attention` gives all of its modules one `max_seq_len`, but their "
            f"`model_config`s ask for different ones: {given}. Use one call for each: "
            f"`use_attention(config, module_ids=[{next(iter(given))!r}])`."
        )
    return lengths[0] if lengths else None


def _length_that_pays(config: AlgorithmConfig, space: SearchSpace, traits: AlgorithmTraits) -> int:
    """Returns the default length.

    A chunk computes its C steps of context anew, so long ones are cheap. But steps of a chunk are
    alike, and a minibatch is made of whole chunks: many of them make a gradient with less noise. So
    chunks are an eighth of a minibatch, as long as that is no less than their context. V-trace
    wants whole fragments: see `vtrace_checks.py`. Replayed runs follow from the batch: see
    `run_length.py`.
    """
    if traits.chunk_rule is ChunkRule.TRANSITION:
        return 1
    if traits.chunk_rule is ChunkRule.RUN:
        return run_length_that_pays(config)
    fragment = fragment_length(config)
    if traits.chunk_rule is ChunkRule.FRAGMENT:
        return DEFAULT_CHUNK if fragment is None else fragment + 1
    context = max(attention.context_len for attention in space.candidates())
    length = most = DEFAULT_CHUNK
    if (minibatch := known_setting(config, "minibatch_size")) is not None:
        most = max(1, minibatch // _LEAST_CHUNKS)
        length = min(most, max(1, context, minibatch // _CHUNKS))
    return length if fragment is None else _even_part(fragment, length, most)


def _even_part(fragment: int, length: int, most: int) -> int:
    """Returns a length near the wanted one that divides a fragment into about equal chunks.

    A rest of a few steps would bring as much context as a whole chunk, and would count as one in
    RLlib's minibatches, which have a fixed number of chunks. A little more than wanted is better
    than one more part: two of 64 rather than three of 43 where 62 were wanted of 128.
    """
    parts = max(math.ceil(fragment / length - 0.1), math.ceil(fragment / most))
    return math.ceil(fragment / parts)
