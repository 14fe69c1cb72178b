"""The plan: what it holds for each kind of algorithm, and that it is made without a trace."""

import pytest
from ray import tune
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention.new_stack.connectors import (
    AddContextToTrainBatch,
    AddRolloutContext,
    AddWindowsToTrainBatch,
    BootstrapVTraceAtFragmentEnds,
)
from rllib_attention.new_stack.connectors.factories import AppendPieces
from rllib_attention.new_stack.plan import AttentionPlan, make_plan
from rllib_attention.search_space import split_overrides
from tests.refusal import state


def plan(config, module_ids=None, **options) -> AttentionPlan:
    return make_plan(config, split_overrides(None, options), module_ids)


def two_modules() -> PPOConfig:
    return PPOConfig().multi_agent(policies={"p0", "p1"})


@pytest.mark.parametrize("config_class", [PPOConfig, IMPALAConfig, SACConfig, BCConfig, CQLConfig])
def test_a_plan_changes_nothing_and_its_application_changes_what_it_says(config_class):
    config = config_class()
    before = state(config)
    made = plan(config)
    assert state(config) == before
    made.apply(config)
    changed = {name for name, value in state(config).items() if value != before[name]}
    expected = {
        "_rl_module_spec",
        "_model_config",
        "_env_to_module_connector",
        "_learner_connector",
        "_learner_class",
        "env_runner_cls",
        "callbacks_on_algorithm_init",
        "episode_lookback_horizon",
    }
    if config_class in (BCConfig, CQLConfig):
        expected |= {"materialize_mapped_data", "prelearner_buffer_class"}
    if config_class is CQLConfig:
        expected |= {"prelearner_buffer_kwargs"}
    assert changed == expected


@pytest.mark.parametrize(
    ("config_class", "pieces", "windowed"),
    [
        (PPOConfig, [AddContextToTrainBatch], False),
        (BCConfig, [AddContextToTrainBatch], False),
        (IMPALAConfig, [AddContextToTrainBatch, BootstrapVTraceAtFragmentEnds], False),
        (SACConfig, [AddWindowsToTrainBatch], True),
        (CQLConfig, [AddWindowsToTrainBatch], True),
    ],
)
def test_the_data_path(config_class, pieces, windowed):
    made = plan(config_class())
    assert [type(piece) for piece in made.learner_connector(None, None)] == pieces
    assert [type(p) for p in made.env_to_module_connector(None, None, None)] == [AddRolloutContext]
    assert made.model_config["attention"]["windowed"] is windowed


@pytest.mark.parametrize("config_class", [PPOConfig, BCConfig])
def test_next_observations(config_class):
    piece = plan(config_class()).learner_connector(None, None)[0]
    names = [type(inner).__name__ for inner in piece._pieces]
    is_wanted = "AddNextObservationsFromEpisodesToTrainBatch" in names
    assert is_wanted == (config_class is BCConfig)


def test_options_of_one_module_go_into_its_own_spec():
    made = plan(two_modules(), ["p0"], window=9)
    assert "attention" not in made.model_config
    assert made.rl_module_spec.rl_module_specs["p0"].model_config["attention"]["window"] == 9


def test_a_plan_for_one_module_keeps_the_model_config_of_all_as_it_is():
    model_config = DefaultModelConfig(fcnet_hiddens=[7])
    config = two_modules().rl_module(model_config=model_config)
    assert plan(config, ["p0"]).model_config is model_config


def test_search_spaces_go_where_tune_resolves_them():
    space = tune.grid_search([4, 8])
    made = plan(two_modules(), ["p0"], window=space)
    assert made.model_config["attention"]["window"] == space
    assert made.rl_module_spec.rl_module_specs["p0"].model_config is None


def test_search_spaces_raise_the_lookback_to_the_longest():
    made = plan(PPOConfig(), num_layers=tune.grid_search([1, 3]), window=tune.choice([4, 8]))
    assert made.episode_lookback_horizon == 3 * 7
    assert plan(PPOConfig(), num_layers=1, window=1).episode_lookback_horizon == 1  # RLlib's own


@pytest.mark.parametrize(
    ("config", "is_long"),
    [
        (PPOConfig(), False),  # fragments carry it
        (PPOConfig().learners(num_learners=2), True),  # which split fragments
        (SACConfig(), True),  # whose buffer may store them apart
        (BCConfig(), True),
    ],
)
def test_a_long_past_is_no_lookback_where_fragments_stay_whole(config, is_long):
    horizon = plan(config, window=32, dilation=32).episode_lookback_horizon
    assert horizon == (1023 if is_long else 1)


def test_a_second_plan_adds_no_second_pieces():
    config = two_modules()
    plan(config, ["p0"]).apply(config)
    again = plan(config, ["p1"])
    assert again.learner_connector is config._learner_connector
    assert again.env_to_module_connector is config._env_to_module_connector
    assert isinstance(again.learner_connector, AppendPieces)
