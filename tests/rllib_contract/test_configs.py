"""Configs."""

import copy
import pickle

import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)

from tests.rllib_contract.pieces import ACTIONS, OBS, Marker, ppo_config

BUFFERS = [
    EpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
]


@pytest.mark.parametrize("config_class", [PPOConfig, IMPALAConfig, DQNConfig, SACConfig])
def test_what_the_user_sets_is_kept_apart_from_the_algorithms_own(config_class):
    config = config_class()
    assert config._rl_module_spec is None
    assert config._model_config == {}
    assert config._env_to_module_connector is None
    assert config._learner_connector is None
    assert config._is_frozen is False
    spec = RLModuleSpec(model_config={"a": 1})
    config.rl_module(rl_module_spec=spec, model_config={"b": 2})
    config.env_runners(env_to_module_connector=Marker).learners(learner_connector=Marker)
    assert config._rl_module_spec is spec
    assert config._model_config == {"b": 2}
    assert config._env_to_module_connector is config._learner_connector is Marker
    assert config.model_config["b"] == 2


def _callback(**kwargs):
    """A callback that can be pickled."""


def test_a_config_survives_what_tune_and_checkpoints_do_to_it():
    config = ppo_config(mine={"window": 3}).env_runners(
        env_to_module_connector=Marker, episode_lookback_horizon=11
    )
    config.learners(learner_connector=Marker).callbacks(on_algorithm_init=[_callback])
    config.rl_module(rl_module_spec=RLModuleSpec(catalog_class=PPOCatalog))
    by_tune = PPOConfig().update_from_dict(copy.deepcopy(config.to_dict()))
    by_checkpoint = PPOConfig.from_state(pickle.loads(pickle.dumps(config.get_state())))
    for restored in (by_tune, by_checkpoint):
        assert restored.model_config["mine"] == {"window": 3}
        assert restored.episode_lookback_horizon == 11
        assert restored._env_to_module_connector is restored._learner_connector is Marker
        assert restored.callbacks_on_algorithm_init == [_callback]
        assert restored._rl_module_spec.catalog_class is PPOCatalog


def test_a_modules_own_model_config_comes_before_that_of_all():
    config = ppo_config(a=1, b=1)
    config.rl_module(rl_module_spec=RLModuleSpec(model_config={"b": 2}))
    spec = config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)})
    assert (spec.model_config["a"], spec.model_config["b"]) == (1, 2)


@pytest.mark.parametrize("config_class", [DQNConfig, SACConfig])
@pytest.mark.parametrize("buffer", BUFFERS, ids=lambda cls: cls.__name__)
def test_replay_buffers_are_accepted_by_their_names(config_class, buffer):
    settings = {"capacity": 100, "alpha": 0.6, "beta": 0.4}
    env = "CartPole-v1" if config_class is DQNConfig else "Pendulum-v1"
    config = config_class().environment(env)
    config.training(replay_buffer_config={"type": buffer.__name__, **settings})
    config.validate()
    config.training(replay_buffer_config={"type": buffer, **settings})
    if config_class is SACConfig:
        with pytest.raises(ValueError, match="must be of type"):
            config.validate()


def test_callbacks_on_init_find_the_replay_buffer(stop):
    found = []
    config = DQNConfig().environment("CartPole-v1")
    config.callbacks(on_algorithm_init=lambda algorithm, **kwargs: found.append(algorithm))
    algorithm = stop(config.build_algo())
    assert found == [algorithm]
    assert type(algorithm.local_replay_buffer) is PrioritizedEpisodeReplayBuffer, (
        "new_stack/algorithm_init.py upgrades the built buffer, since a class is not accepted."
    )
