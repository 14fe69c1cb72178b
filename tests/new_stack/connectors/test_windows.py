"""The window of each step of a fragment, against the episode's own lists."""

import numpy as np
import pytest

from rllib_attention.new_stack.connectors.windows import fragment_windows
from tests.new_stack.connectors.fragments import fragment, module, played
from tests.streams import read_windows


@pytest.mark.parametrize(("start", "num_steps"), [(0, 10), (3, 4), (17, 9)])
def test_each_window_ends_at_its_step(start, num_steps):
    known = module()
    attention, prev = known.attention, known.prev_inputs
    episode = fragment(start, start + num_steps, min(start, attention.history_len))
    obs, actions, rewards = played()
    stacked = prev.sequence(actions, rewards, 0, len(obs))
    for ahead, packed in enumerate(fragment_windows(episode, known)):
        windows = read_windows(packed, attention.context_len, (2,), prev.size)
        assert len(windows) == num_steps
        for step, (seen, carried) in enumerate(windows, start + ahead):
            steps = slice(max(0, step - attention.context_len), step + 1)
            np.testing.assert_array_equal(seen, obs[steps])
            np.testing.assert_array_equal(carried, stacked[steps])
