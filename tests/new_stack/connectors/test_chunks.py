"""The context of each chunk, against the episode's own lists."""

import pytest

from rllib_attention import AttentionConfig
from tests.new_stack.connectors.fragments import ATTENTION, check_chunks

WITHOUT_PREV = AttentionConfig(num_layers=2, window=4)


@pytest.mark.parametrize("attention", [WITHOUT_PREV, ATTENTION])
@pytest.mark.parametrize("max_seq_len", [1, 4, 16])
@pytest.mark.parametrize(("start", "num_steps"), [(0, 10), (3, 4), (17, 9)])
def test_each_chunk_sees_the_steps_before_it(attention, max_seq_len, start, num_steps):
    check_chunks(attention, max_seq_len, start, num_steps)
