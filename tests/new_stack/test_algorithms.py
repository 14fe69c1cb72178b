"""The table of traits: RLlib's own configs, modules and learners say the same."""

import pytest
from gymnasium import spaces
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.connectors.learner import AddNextObservationsFromEpisodesToTrainBatch
from ray.rllib.core.rl_module.rl_module import RLModule

from rllib_attention import use_attention
from rllib_attention.new_stack.algorithms import (
    TRAITS,
    UNKNOWN,
    ChunkRule,
    DataPath,
    algorithm_traits,
    catalog_for,
    trains_offline,
)
from tests.harness import DISCRETE, VECTOR, RandomEnv
from tests.refusal import refuses

BOX = spaces.Box(-1.0, 1.0, (2,))

ALL = [
    PPOConfig,
    APPOConfig,
    IMPALAConfig,
    BCConfig,
    MARWILConfig,
    DQNConfig,
    SACConfig,
    TQCConfig,
    CQLConfig,
    IQLConfig,
]
OFFLINE = {BCConfig, MARWILConfig, CQLConfig, IQLConfig}
WINDOW = {DQNConfig, SACConfig, TQCConfig, CQLConfig, IQLConfig}
VTRACE = {APPOConfig, IMPALAConfig}


def test_every_algorithm_of_rllib_is_in_the_table_or_refused():
    configs = {type(find()[1]) for find in ALGORITHMS.values()}
    assert configs | {TQCConfig} == {*TRAITS, DreamerV3Config}  # RLlib's list lacks TQC
    assert set(ALL) == set(TRAITS)


@pytest.mark.parametrize("config_class", ALL)
def test_traits(config_class):
    traits = algorithm_traits(config_class())
    assert (traits.data_path is DataPath.WINDOW) == (config_class in WINDOW)
    assert (traits.chunk_rule is ChunkRule.FRAGMENT) == traits.vtrace == (config_class in VTRACE)
    assert traits.offline == trains_offline(config_class()) == (config_class in OFFLINE)
    assert traits.replay == (config_class in WINDOW - OFFLINE)
    assert traits.min_dataset_iters == (2 if config_class is CQLConfig else 1)


@pytest.mark.parametrize(
    "config_class",
    # The learners of IMPALA and APPO leave threads behind that slow down every later test.
    [pytest.param(c, marks=pytest.mark.slow) if c in VTRACE else c for c in ALL],
)
def test_rllibs_learners_read_next_observations_where_the_table_says_so(config_class):
    action_space = DISCRETE if config_class is DQNConfig else BOX
    config = config_class()
    if config_class is CQLConfig:
        config.training(lr=None)
    learner = config.build_learner(env=RandomEnv({"action_space": action_space}))
    learner.build()
    pieces = {type(piece) for piece in learner._learner_connector.connectors}
    reads = AddNextObservationsFromEpisodesToTrainBatch in pieces
    assert reads == algorithm_traits(config).next_obs


def test_data_from_files_is_offline_whatever_the_algorithm():
    assert trains_offline(SACConfig().offline_data(input_=["/recorded"]))
    assert not trains_offline(SACConfig())


@pytest.mark.parametrize("config_class", ALL)
def test_own_algorithms_are_their_nearest_parent(config_class):
    class Own(config_class):
        pass

    class Grandchild(Own):
        pass

    assert algorithm_traits(Grandchild()) is TRAITS[config_class]


def test_unknown_algorithms_take_the_window_path():
    class Own(AlgorithmConfig):
        pass

    assert algorithm_traits(Own()) is UNKNOWN
    assert UNKNOWN.data_path is DataPath.WINDOW


def test_unknown_algorithms_without_a_default_module_are_refused():
    """Whether attention would do right by a module of their own, nobody can know."""

    class Own(AlgorithmConfig):
        pass

    with refuses(config := Own(), ValueError, "builds attention into RLlib's default RLModules"):
        use_attention(config)


@pytest.mark.parametrize("derived", [False, True])
def test_dreamer(derived):
    class Own(DreamerV3Config):
        pass

    config = Own() if derived else DreamerV3Config()
    message = "DreamerV3 cannot use attention: it has no encoder to replace"
    with refuses(config, ValueError, message):
        use_attention(config)


@pytest.mark.parametrize("config_class", ALL)
def test_each_default_module_has_the_catalog_that_rllib_gives_it(config_class):
    config = config_class()
    spec = config.get_default_rl_module_spec()
    spec.observation_space, spec.model_config = VECTOR, config.model_config
    spec.action_space = DISCRETE if config_class is DQNConfig else BOX
    assert type(spec.build().catalog) is catalog_for(spec.module_class)


def test_modules_have_the_catalog_of_their_nearest_parent():
    class Own(DefaultTQCTorchRLModule):
        pass

    assert catalog_for(Own) is TQCCatalog is not SACCatalog
    assert catalog_for(RLModule) is None
    assert catalog_for(None) is None
