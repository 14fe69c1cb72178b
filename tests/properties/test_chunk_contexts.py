"""Random fragments and options: each chunk's context is what the episode really held before it."""

from hypothesis import given
from hypothesis import strategies as st

from rllib_attention import AttentionConfig
from tests.new_stack.connectors.fragments import LENGTH, check_chunks

OPTIONS = st.fixed_dictionaries(
    {"num_layers": st.integers(2, 3), "window": st.integers(1, 8)},
    optional={
        "dilation": st.integers(1, 4),
        "prev_actions": st.integers(0, 5),
        "prev_rewards": st.integers(0, 5),
    },
)
# A fragment's first step, and the one after its last.
ENDS = st.lists(st.integers(0, LENGTH), min_size=2, max_size=2, unique=True).map(sorted)


@given(OPTIONS, st.integers(1, 40), ENDS)
def test_contexts_are_the_true_past(options, max_seq_len, ends):
    start, stop = ends
    check_chunks(AttentionConfig(**options), max_seq_len, start, stop - start)
