"""Counts of a sample, by the agent's own id."""

import pytest
from ray.rllib.core import DEFAULT_AGENT_ID

from rllib_attention.new_stack.replay_buffers.sample_metrics import SampleMetrics
from rllib_attention.new_stack.replay_buffers.timeline import Run


@pytest.mark.parametrize("agent_id", [0, 1, "a", None])
def test_each_agent_is_counted_under_its_own_id(agent_id):
    """`make_multi_agent` numbers agents from 0."""
    metrics = SampleMetrics(7)
    metrics.count([Run((5, agent_id), None, 2, 3, 1), Run((6, agent_id), None, 0, 4, 1)], "p0")
    metrics.count_resample("p0", agent_id)
    found = metrics.as_dict()
    key = DEFAULT_AGENT_ID if agent_id is None else agent_id
    assert found["agent_to_num_steps_sampled"] == {key: 7}
    assert found["agent_to_num_episodes_per_sample"] == {key: 2}
    assert found["agent_to_num_resamples"] == {key: 1}
    assert found["module_to_num_steps_sampled"] == {"p0": 7}
