"""Items in RLlib's batches: under RLlib's keys, in the order of the rows."""

import numpy as np
from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import BatchedNdArray

from rllib_attention.new_stack.connectors.batch_items import (
    as_rows,
    batch_key,
    replace_batch_items,
)


def agents_episode():
    episode = MultiAgentEpisode(
        observations=[{"a": 0.0}],
        agent_module_ids={"a": "p"},
        agent_to_module_mapping_fn=lambda agent_id, episode: "p",
    )
    return episode.agent_episodes["a"]


def test_keys_are_those_of_rllib():
    for episode in (SingleAgentEpisode(id_="one"), agents_episode()):
        batch = {}
        EnvToModulePipeline.add_batch_item(batch, "obs", 1.0, episode)
        assert list(batch["obs"]) == [batch_key(episode)]


def test_items_take_the_place_of_earlier_ones():
    first, second = SingleAgentEpisode(id_="one"), SingleAgentEpisode(id_="two")
    batch = {"obs": {("one",): ["old"], ("other",): ["kept"]}}
    replace_batch_items(batch, "obs", [(first, "a"), (second, "b"), (first, "c")])
    assert batch["obs"] == {("one",): ["a", "c"], ("other",): ["kept"], ("two",): ["b"]}


def test_arrays_become_rows():
    array = np.zeros((2, 3))
    rows = as_rows({"x": {"y": array}})["x"]["y"]
    assert isinstance(rows, BatchedNdArray)
    assert rows.base is array
