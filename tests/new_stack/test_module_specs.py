"""Module specs: which modules there are, what becomes of the user's specs, and what is refused."""

import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

from rllib_attention import use_attention
from rllib_attention.encoder.catalog import attention_catalog
from rllib_attention.new_stack.module_specs import (
    has_many_modules,
    known_modules,
    module_options,
)
from tests.harness import DISCRETE, VECTOR
from tests.refusal import refuses


class OwnModule(RLModule):
    """No default one of RLlib."""


def two_modules() -> PPOConfig:
    return PPOConfig().multi_agent(policies={"p0", "p1"})


def windows(config) -> dict[str, int]:
    return {mid: attention.window for mid, attention in module_options(config).items()}


def test_known_modules():
    assert known_modules(PPOConfig()) == ["default_policy"]
    assert not has_many_modules(PPOConfig())
    assert known_modules(two_modules()) == ["p0", "p1"]
    assert has_many_modules(two_modules())
    multi = MultiRLModuleSpec(rl_module_specs={"p2": RLModuleSpec()})
    assert known_modules(two_modules().rl_module(rl_module_spec=multi)) == ["p0", "p1", "p2"]
    assert known_modules(PPOConfig().rl_module(rl_module_spec=multi)) == ["p2"]


def test_all_modules_get_attention():
    assert windows(use_attention(PPOConfig(), window=9)) == {"default_policy": 9}
    assert windows(use_attention(two_modules(), window=9)) == {"p0": 9, "p1": 9}
    multi = MultiRLModuleSpec(rl_module_specs={"p1": RLModuleSpec()})
    config = two_modules().rl_module(rl_module_spec=multi)
    assert windows(use_attention(config, window=9)) == {"p0": 9, "p1": 9}


def test_one_call_for_each_module_keeps_both():
    config = two_modules()
    use_attention(config, module_ids=["p0"], window=5)
    assert windows(config) == {"p0": 5}
    use_attention(config, module_ids={"p1"}, window=9)
    assert windows(config) == {"p0": 5, "p1": 9}


def test_a_single_spec_stays_with_the_other_modules():
    spec = RLModuleSpec(model_config={"fcnet_hiddens": [7]})
    config = two_modules().rl_module(rl_module_spec=spec)
    use_attention(config, module_ids=["p0"])
    specs = config._rl_module_spec.rl_module_specs
    assert {mid: s.model_config["fcnet_hiddens"] for mid, s in specs.items()} == {
        "p0": [7],
        "p1": [7],
    }
    assert "attention" not in specs["p1"].model_config
    assert specs["p1"].catalog_class is None


def test_the_users_objects_stay_as_they_were():
    own = RLModuleSpec(model_config={"fcnet_hiddens": [7]})
    multi = MultiRLModuleSpec(rl_module_specs={"p0": own})
    use_attention(two_modules().rl_module(rl_module_spec=multi))
    assert multi.rl_module_specs == {"p0": own}
    assert own == RLModuleSpec(model_config={"fcnet_hiddens": [7]})


@pytest.mark.parametrize("own", [DefaultModelConfig(fcnet_hiddens=[7]), {"fcnet_hiddens": [7]}])
def test_a_specs_own_model_config_does_not_shadow_the_options(own):
    """RLlib prefers it, and a `DefaultModelConfig` holds a `max_seq_len` of 20."""
    config = PPOConfig()
    use_attention(config.rl_module(rl_module_spec=RLModuleSpec(model_config=own)), max_seq_len=32)
    multi = config.get_multi_rl_module_spec(spaces={"default_policy": (VECTOR, DISCRETE)})
    [spec] = multi.rl_module_specs.values()
    assert spec.model_config["fcnet_hiddens"] == [7]
    assert spec.model_config["max_seq_len"] == 32


def test_own_catalogs_stay():
    class Own(PPOCatalog):
        pass

    config = PPOConfig().rl_module(rl_module_spec=RLModuleSpec(catalog_class=Own))
    assert use_attention(config)._rl_module_spec.catalog_class is attention_catalog(Own)


def test_modules_derived_from_a_default_one_are_taken():
    class Own(DefaultPPOTorchRLModule):
        pass

    config = PPOConfig().rl_module(rl_module_spec=RLModuleSpec(module_class=Own))
    assert list(windows(use_attention(config))) == ["default_policy"]
    assert config._rl_module_spec.module_class is Own


def test_wrong_catalog():
    """TQC on SAC's catalog would train one quantile without a word."""
    config = TQCConfig().rl_module(rl_module_spec=RLModuleSpec(catalog_class=SACCatalog))
    message = (
        "DefaultTQCTorchRLModule needs a catalog derived from TQCCatalog, got 'SACCatalog'. Use "
        "`config.rl_module(rl_module_spec=RLModuleSpec(catalog_class=TQCCatalog))`"
    )
    with refuses(config, ValueError, message):
        use_attention(config)


def test_own_module():
    config = PPOConfig().rl_module(rl_module_spec=RLModuleSpec(module_class=OwnModule))
    message = "but module 'default_policy' is of class OwnModule. In an RLModule of your own"
    with refuses(config, ValueError, message) as info:
        use_attention(config)
    assert "module_ids" not in str(info.value)


def test_own_module_beside_others():
    multi = MultiRLModuleSpec(rl_module_specs={"p1": RLModuleSpec(module_class=OwnModule)})
    config = two_modules().rl_module(rl_module_spec=multi)
    message = "To leave this module as it is, use `use_attention(config, module_ids=['p0'])`."
    with refuses(config, ValueError, message):
        use_attention(config)
    assert list(windows(use_attention(config, module_ids=["p0"]))) == ["p0"]
