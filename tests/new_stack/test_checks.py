"""What `use_attention` refuses before it sets anything: each time the config stays as it was."""

import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_attention import use_attention
from rllib_attention.new_stack.module_specs import module_options
from tests.refusal import refuses

LSTM = DefaultModelConfig(use_lstm=True)


def two_modules(**own) -> PPOConfig:
    config = PPOConfig().multi_agent(policies={"p0", "p1"})
    specs = {mid: RLModuleSpec(model_config=model_config) for mid, model_config in own.items()}
    return config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))


# `module_ids`


@pytest.mark.parametrize("module_ids", [["p2"], [], ["p0", "p2"]])
def test_unknown_modules(module_ids):
    config = two_modules()
    message = (
        f"`module_ids` must name modules of this config, one of ['p0', 'p1'], got {module_ids}. "
        "Use `use_attention(config, module_ids=['p0'])`"
    )
    with refuses(config, ValueError, message):
        use_attention(config, module_ids=module_ids)


@pytest.mark.parametrize(("module_ids", "kind"), [("p0", "str"), (3, "int")])
def test_module_ids_of_another_type(module_ids, kind):
    config = two_modules()
    message = (
        f"`module_ids` must be a list or set of module ids, got {module_ids!r} ({kind}). Use "
        f"`use_attention(config, module_ids=[{module_ids!r}])`."
    )
    with refuses(config, TypeError, message):
        use_attention(config, module_ids=module_ids)


def test_module_ids_of_a_single_module():
    config = PPOConfig()
    message = "but this one has a single module, got ['p0']. Use `use_attention(config)`"
    with refuses(config, ValueError, message):
        use_attention(config, module_ids=["p0"])


def test_the_single_modules_own_id_is_all_modules():
    config = use_attention(PPOConfig(), module_ids=["default_policy"])
    assert isinstance(config._rl_module_spec, RLModuleSpec)
    assert list(module_options(config)) == ["default_policy"]


# The config


def test_twice():
    config = use_attention(PPOConfig())
    with refuses(config, ValueError, "This config uses attention already"):
        use_attention(config)


def test_twice_for_one_module():
    config = use_attention(two_modules(), module_ids=["p0"])
    for module_ids in (["p0"], ["p0", "p1"], None):
        with refuses(config, ValueError, "This config uses attention already"):
            use_attention(config, module_ids=module_ids)


def test_two_sweeps_for_two_modules():
    """Tune resolves what is in the `model_config` of all modules: the second replaces the first."""
    config = use_attention(two_modules(), module_ids=["p0"], window=tune.choice([4, 8]))
    with refuses(config, ValueError, "An earlier call of `use_attention` has search spaces"):
        use_attention(config, module_ids=["p1"], window=tune.choice([4, 8]))
    use_attention(config, module_ids=["p1"], window=8)


def test_frozen():
    config = PPOConfig()
    config.freeze()
    message = "Use `use_attention(config.copy(copy_frozen=False))`, before `build_algo()`"
    with refuses(config, ValueError, message):
        use_attention(config)
    use_attention(config.copy(copy_frozen=False))


def test_half_of_the_new_stack():
    config = PPOConfig().api_stack(
        enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=False
    )
    message = (
        "RLlib's new API stack needs `enable_rl_module_and_learner` and "
        "`enable_env_runner_and_connector_v2` both True, got only the first."
    )
    with refuses(config, ValueError, message):
        use_attention(config)


def test_another_framework():
    config = PPOConfig().framework("tf2")
    with refuses(config, ValueError, "Attention needs framework 'torch', got 'tf2'"):
        use_attention(config)


@pytest.mark.parametrize("key", ["use_lstm", "use_attention"])
@pytest.mark.parametrize(
    "place",
    [
        lambda asks: {"model_config": asks},
        lambda asks: {"rl_module_spec": RLModuleSpec(model_config=asks)},
        lambda asks: {
            "rl_module_spec": MultiRLModuleSpec(
                rl_module_specs={"p0": RLModuleSpec(model_config=asks)}
            )
        },
    ],
)
def test_in_place_of_another_memory(place, key):
    config = PPOConfig().rl_module(**place({key: True}))
    message = (
        f"`model_config` asks for `{key}=True`, but attention takes the place of the encoder. Use "
        f"`config.rl_module(model_config={{'{key}': False}})`"
    )
    with refuses(config, ValueError, message):
        use_attention(config)


def test_in_place_of_a_default_model_configs_lstm():
    config = PPOConfig().rl_module(model_config=LSTM)
    with refuses(config, ValueError, "`model_config` asks for `use_lstm=True`"):
        use_attention(config)


def test_beside_a_module_with_an_lstm():
    config = two_modules(p1=LSTM)
    message = (
        "`model_config` of 'p1' asks for `use_lstm=True`, but attention takes the place of the "
        "encoder. Use `use_attention(config, module_ids=['p0'])` to leave it there, or "
    )
    with refuses(config, ValueError, message):
        use_attention(config)
    with refuses(config, ValueError, "asks for `use_lstm=True`"):
        use_attention(config, module_ids=["p1"])
    use_attention(config, module_ids=["p0"])
    assert list(module_options(config)) == ["p0"]


@pytest.mark.parametrize("place", ["model_config", "spec"])
def test_options_of_rllibs_own_attention(place):
    """RLlib's new stack takes them without a word, and reads none of them."""
    model_config = {"attention_dim": 32, "fcnet_hiddens": [8]}
    spec = RLModuleSpec(model_config=model_config)
    given = {"model_config": model_config} if place == "model_config" else {"rl_module_spec": spec}
    config = PPOConfig().rl_module(**given)
    message = (
        "Nothing reads ['attention_dim'] in the `model_config` of module 'default_policy' on "
        "RLlib's new API stack. Use `use_attention(config, AttentionConfig.from_rllib("
        "{'attention_dim': 32}))`"
    )
    with refuses(config, ValueError, message):
        use_attention(config)


def test_lookback_too_small():
    config = PPOConfig().env_runners(episode_lookback_horizon=5)
    message = (
        "`episode_lookback_horizon` must be at least the 14 steps that attention looks back, got "
        "5. Leave it to `use_attention`, or use "
        "`config.env_runners(episode_lookback_horizon=14)`."
    )
    with refuses(config, ValueError, message):
        use_attention(config, num_layers=2, window=8)
    use_attention(config, num_layers=1, window=6)


def test_an_earlier_calls_lookback_is_no_setting_of_the_user():
    config = use_attention(two_modules(), module_ids=["p0"], num_layers=1, window=6)
    use_attention(config, module_ids=["p1"], num_layers=1, window=30)
    assert config.episode_lookback_horizon == 29


def test_a_second_try_after_a_refusal_starts_afresh():
    config = SACConfig().training(replay_buffer_config={"type": "ReplayBuffer"})
    with refuses(config, ValueError, "The replay buffer's `type` must be one of"):
        use_attention(config, window=4)
    config.training(replay_buffer_config={"type": "EpisodeReplayBuffer"})
    use_attention(config, num_layers=1, window=64)
    assert config.episode_lookback_horizon == 63
