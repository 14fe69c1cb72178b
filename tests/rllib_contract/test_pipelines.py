"""Connector pipelines: the order of pieces, and when they have nothing to do."""

import copy

import numpy as np
import pytest
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    BatchIndividualItems,
)
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import (
    AddColumnsFromEpisodesToTrainBatch,
    AddNextObservationsFromEpisodesToTrainBatch,
    AddOneTsToEpisodesAndTruncate,
)
from ray.rllib.connectors.module_to_env import RemoveSingleTsTimeRankFromBatch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.spaces.space_utils import BatchedNdArray

from tests.rllib_contract.pieces import ACTIONS, OBS, Marker, episode, lstm, module, ppo_config


def names(pieces) -> list[str]:
    return [type(piece).__name__ for piece in pieces]


def test_order_of_the_env_to_module_pipeline():
    config = ppo_config().env_runners(
        env_to_module_connector=lambda env, spaces, device: [Marker(), Marker()]
    )
    runner = SingleAgentEnvRunner(config=config)
    assert names(runner._env_to_module.connectors) == [
        *("Marker", "Marker"),
        "AddObservationsFromEpisodesToBatch",
        "AddTimeDimToBatchAndZeroPad",
        "AddStatesFromEpisodesToBatch",
        "BatchIndividualItems",
        "NumpyToTensor",
    ], "User pieces run first, then these defaults: new_stack/connectors/rollout.py adds STATE_IN."


def test_order_of_the_learner_pipeline_and_its_spaces():
    given = []

    def factory(observation_space, action_space):
        given.append((observation_space, action_space))
        return [Marker()]

    config = ppo_config().learners(learner_connector=factory)
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)})
    assert names(learner._learner_connector.connectors) == [
        "AddOneTsToEpisodesAndTruncate",
        "Marker",
        "AddObservationsFromEpisodesToBatch",
        "AddColumnsFromEpisodesToTrainBatch",
        "AddTimeDimToBatchAndZeroPad",
        "AddStatesFromEpisodesToBatch",
        "BatchIndividualItems",
        "NumpyToTensor",
        "GeneralAdvantageEstimation",
    ], "new_stack/connectors/chunks.py runs the defaults from AddObservations to AddTimeDim itself."
    assert given == [(None, None)], (
        "Learners build connectors without spaces: our pieces take shapes from data and module."
    )


@pytest.mark.parametrize(
    ("piece", "column"),
    [
        (AddObservationsFromEpisodesToBatch(as_learner_connector=True), Columns.OBS),
        (AddNextObservationsFromEpisodesToTrainBatch(), Columns.NEXT_OBS),
        (AddTimeDimToBatchAndZeroPad(as_learner_connector=True), Columns.STATE_IN),
        (AddStatesFromEpisodesToBatch(as_learner_connector=True), Columns.STATE_IN),
        (AddTimeDimToBatchAndZeroPad(), Columns.STATE_IN),
        (AddStatesFromEpisodesToBatch(), Columns.STATE_IN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ConnectorV2) else value,
)
def test_pieces_leave_a_batch_alone_that_has_their_column(piece, column):
    given = {column: {("id",): ["mine"]}, "other": {("id",): [1, 2, 3]}}
    shared_data = {}
    batch = piece(
        rl_module=lstm(),
        batch=copy.deepcopy(given),
        episodes=[episode()],
        shared_data=shared_data,
    )
    assert batch == given, f"{type(piece).__name__} returns early where {column} is there."
    assert not shared_data, "Nothing is announced: rows without a time dimension stay as they are."


def test_observations_of_a_train_batch_get_episode_ids_of_their_own():
    episodes = [episode(id_="a"), episode(id_="a")]
    piece = AddObservationsFromEpisodesToBatch(as_learner_connector=True)
    piece(rl_module=None, batch={}, episodes=episodes)
    assert [e.id_ for e in episodes] == ["a_0", "a_1"], (
        "Fragments of one episode are told apart by the piece that adds observations: ours run it."
    )


def test_chunks_are_padded_and_masked_per_episode():
    episodes = [episode(6, id_="a")]
    batch, shared_data = {}, {}
    for piece in (
        AddObservationsFromEpisodesToBatch(as_learner_connector=True),
        AddColumnsFromEpisodesToTrainBatch(),
        AddTimeDimToBatchAndZeroPad(as_learner_connector=True),
    ):
        batch = piece(rl_module=lstm(), batch=batch, episodes=episodes, shared_data=shared_data)
    [obs], [mask] = batch[Columns.OBS].values(), batch[Columns.LOSS_MASK].values()
    assert np.shape(obs) == (2, 4, 3), "Steps are cut from the fragment's first on, ceil(6 / 4)."
    assert np.array(mask).tolist() == [[True] * 4, [True] * 2 + [False] * 2]
    assert not np.array(obs)[1, 2:].any(), "Padding is zeros at the end."


def test_ready_made_rows_pass_the_batching_piece():
    rows = np.arange(6).reshape(2, 3).view(BatchedNdArray)
    batch = {Columns.OBS: {("a",): [np.zeros(3)], ("b",): [np.zeros(3)]}, Columns.STATE_IN: [rows]}
    batch = BatchIndividualItems()(rl_module=module(), batch=batch, episodes=[], shared_data={})
    assert np.array_equal(batch[Columns.STATE_IN], rows), "AddRolloutContext hands one batch over."


def test_single_steps_get_a_time_dimension_that_is_announced_and_removed():
    shared_data, running = {}, episode(0, done=False)
    batch = {Columns.OBS: {(running.id_,): [np.zeros(3)]}}
    batch = AddTimeDimToBatchAndZeroPad()(
        rl_module=lstm(), batch=batch, episodes=[running], shared_data=shared_data
    )
    assert shared_data == {"_added_single_ts_time_rank": True}, (
        "Beside RNN modules our env-to-module piece runs AddTimeDim, so that this is announced."
    )
    out = RemoveSingleTsTimeRankFromBatch()(
        rl_module=lstm(),
        batch={Columns.ACTIONS: {(running.id_,): [np.zeros((1, 2))]}},
        episodes=[running],
        shared_data=shared_data,
    )
    assert next(iter(out[Columns.ACTIONS].values()))[0].shape == (2,)


def test_the_artificial_step_is_masked_and_follows_the_last():
    fragment = episode(3, done=False).to_numpy()
    batch = AddOneTsToEpisodesAndTruncate()(
        rl_module=None, batch={}, episodes=[fragment], shared_data={}
    )
    assert len(fragment) == 4
    [mask] = batch[Columns.LOSS_MASK].values()
    assert list(mask) == [True, True, True, False], (
        "V-trace and GAE take the value of this step as bootstrap: vtrace_bootstrap.py."
    )
