"""The old API stack."""

import copy

import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.models.catalog import MODEL_DEFAULTS, ModelCatalog
from ray.rllib.models.torch.fcnet import FullyConnectedNetwork
from ray.tune.registry import RLLIB_MODEL, _global_registry, _Registry

from tests.rllib_contract.pieces import ACTIONS, OBS


def test_the_registry_holds_models_by_name_and_is_filled_after_each_init():
    _global_registry.register(RLLIB_MODEL, "contract", FullyConnectedNetwork)
    assert _global_registry.get(RLLIB_MODEL, "contract") is FullyConnectedNetwork
    _Registry().register(RLLIB_MODEL, "contract", FullyConnectedNetwork)
    _global_registry.unregister(RLLIB_MODEL, "contract")
    assert _global_registry.flush_values in ray._private.worker._post_init_hooks


def test_a_custom_model_may_be_a_class_and_gets_the_policys_own_dict():
    seen = []

    class Model(FullyConnectedNetwork):
        def __init__(self, obs_space, action_space, num_outputs, model_config, name, **options):
            seen.append((model_config, options))
            super().__init__(obs_space, action_space, num_outputs, model_config, name)

    config = {**MODEL_DEFAULTS, "custom_model": Model, "custom_model_config": {"mine": 1}}
    ModelCatalog.get_model_v2(OBS, ACTIONS, 2, config, framework="torch")
    assert seen[0][0] is config, "The model may write its class into the policy's own dict."
    assert seen[0][1] == {"mine": 1}, "Options arrive as keyword arguments."


def test_the_class_of_a_custom_model_survives_dict_configs():
    config = PPOConfig().training(model={"custom_model": FullyConnectedNetwork})
    restored = PPOConfig().update_from_dict(copy.deepcopy(config.to_dict()))
    assert restored.model["custom_model"] is FullyConnectedNetwork
