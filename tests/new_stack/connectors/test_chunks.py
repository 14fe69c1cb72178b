"""The context of each chunk, against the episode's own lists."""

import numpy as np
import pytest

from rllib_attention import AttentionConfig
from rllib_attention.new_stack.connectors.chunks import chunk_contexts
from tests.new_stack.connectors.fragments import fragment, module, played

WITHOUT_PREV = AttentionConfig(num_layers=2, window=4)


@pytest.mark.parametrize("attention", [WITHOUT_PREV, module().attention])
@pytest.mark.parametrize("max_seq_len", [1, 4, 16])
@pytest.mark.parametrize(("start", "num_steps"), [(0, 10), (3, 4), (17, 9)])
def test_each_chunk_sees_the_steps_before_it(attention, max_seq_len, start, num_steps):
    known = module(attention, max_seq_len)
    episode = fragment(start, start + num_steps, min(start, attention.history_len))
    chunks = chunk_contexts(episode, known)
    obs, actions, rewards = played()
    prev = known.prev_inputs
    rows = np.concatenate((prev.none[None], prev.rows(actions, rewards, len(actions))))
    reach = max(0, prev.depth - 1)
    assert len(chunks.context) == -(-num_steps // max_seq_len)
    for i, context in enumerate(chunks.context):
        first = start + i * max_seq_len  # the chunk's first step, in the episode
        past, size = min(first, 6), min(max_seq_len, start + num_steps - first)
        assert (chunks.context_length[i], chunks.chunk_length[i]) == (past, size)
        np.testing.assert_array_equal(
            context[6 - past :], np.reshape(obs[first - past : first], (-1, 2))
        )
        if prev.size:
            # The real rows, and those of earlier steps that the first one reaches back to.
            seen = chunks.prev[i][reach + 6 - past : reach + 6 + size]
            np.testing.assert_array_equal(seen, rows[first - past : first + size])
    assert (chunks.prev is None) == (not prev.size)
