"""`max_seq_len`: the options' own, a `model_config`'s, or one that pays."""

import pytest
from ray import tune
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.new_stack.chunk_length import fragment_length
from rllib_attention.new_stack.module_specs import model_config_of, module_options
from tests.harness import DISCRETE, VECTOR
from tests.refusal import refuses


def lengths(config) -> dict[str, int]:
    return {mid: attention.max_seq_len for mid, attention in module_options(config).items()}


def length(config) -> int:
    return lengths(config)["default_policy"]


@pytest.mark.parametrize(
    ("training", "options", "expected"),
    [
        # Two env runners: fragments of 2,000. Contexts of 62 but where a window is given.
        ({"minibatch_size": 512}, {}, 63),  # an eighth
        ({"minibatch_size": 4_000}, {}, 500),
        ({"minibatch_size": 512}, {"window": 65}, 125),  # its context is 128
        ({"minibatch_size": 512}, {"window": tune.grid_search([8, 65])}, 125),
        ({"minibatch_size": 512}, {"window": 257}, 250),  # two in a minibatch
        ({}, {}, 61),  # RLlib's minibatch of 128
        ({}, {"window": 8}, 16),
        ({"minibatch_size": 40}, {}, 20),
        ({"minibatch_size": 1}, {}, 1),
        ({"minibatch_size": None}, {}, 63),  # 64, in equal parts
        ({"minibatch_size": tune.choice([64, 128])}, {}, 63),
        ({"train_batch_size_per_learner": 256, "minibatch_size": 512}, {}, 64),
        ({"train_batch_size_per_learner": 140, "minibatch_size": 512}, {}, 70),  # no rest of 6
        ({"train_batch_size_per_learner": 140, "minibatch_size": 128}, {}, 35),  # two in 128
        ({"train_batch_size_per_learner": 20, "minibatch_size": None}, {}, 10),
        ({"minibatch_size": 512}, {"max_seq_len": 64}, 64),
        ({"minibatch_size": 512}, {"max_seq_len": 20}, 20),
    ],
)
def test_chunks_are_as_long_as_pays(training, options, expected):
    config = PPOConfig().environment("CartPole-v1").training(**training)
    if training == {"minibatch_size": 1}:
        config.training(train_batch_size_per_learner=1)
    assert use_attention(config, **options).model_config["max_seq_len"] == expected


@pytest.mark.parametrize("config_class", [APPOConfig, IMPALAConfig])
def test_vtrace_gets_whole_fragments(config_class):
    assert length(use_attention(config_class())) == 51
    config = config_class().env_runners(rollout_fragment_length=100)
    assert length(use_attention(config)) == 101
    assert length(use_attention(config_class(), max_seq_len=20)) == 20
    # Episodes have no known length.
    config = config_class().env_runners(batch_mode="complete_episodes")
    assert length(use_attention(config)) == 64


def test_replayed_runs_are_as_long_as_leaves_enough_of_them():
    assert length(use_attention(DQNConfig())) == 1  # RLlib's batch of 32
    assert length(use_attention(SACConfig())) == 8  # RLlib's batch of 256
    assert length(use_attention(SACConfig(), max_seq_len=16)) == 16
    searched = SACConfig().training(train_batch_size_per_learner=tune.choice([128, 256]))
    assert length(use_attention(searched)) == 1


def test_fragments_of_unknown_length():
    assert fragment_length(PPOConfig().env_runners(rollout_fragment_length=37)) == 37
    searched = PPOConfig()
    searched.rollout_fragment_length = tune.choice([10, 20])
    for config in (
        searched,
        PPOConfig().env_runners(batch_mode="complete_episodes"),
        PPOConfig().training(train_batch_size_per_learner=tune.choice([100, 200])),
        BCConfig().offline_data(input_=["/recorded"]),
    ):
        assert fragment_length(config) is None


# What the user says in a `model_config`


def given(where: str, **model_config) -> PPOConfig:
    """A config whose `model_config` says something, in one of the places where it may."""
    if where == "dict":
        return PPOConfig().rl_module(model_config=model_config)
    if where == "DefaultModelConfig":
        return PPOConfig().rl_module(model_config=DefaultModelConfig(**model_config))
    spec = RLModuleSpec(
        model_config=DefaultModelConfig(**model_config)
        if where == "DefaultModelConfig of a spec"
        else model_config
    )
    if where == "dict of a multi spec":
        spec = MultiRLModuleSpec(rl_module_specs={"default_policy": spec})
    return PPOConfig().rl_module(rl_module_spec=spec)


PLACES = [
    "dict",
    "DefaultModelConfig",
    "dict of a spec",
    "DefaultModelConfig of a spec",
    "dict of a multi spec",
]
SPECS = [place for place in PLACES if place.startswith("Default")]


@pytest.mark.parametrize("where", PLACES)
def test_a_model_configs_length_is_respected(where):
    config = use_attention(given(where, max_seq_len=10, fcnet_hiddens=[7]))
    assert length(config) == 10
    # RLlib's own pieces read it here.
    assert built_model_config(config)["max_seq_len"] == 10
    assert built_model_config(config)["fcnet_hiddens"] == [7]


@pytest.mark.parametrize("where", PLACES)
def test_the_same_length_twice_is_no_contradiction(where):
    assert length(use_attention(given(where, max_seq_len=10), max_seq_len=10)) == 10


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("other", [20, tune.grid_search([10, 20])], ids=["20", "search"])
def test_two_different_lengths_are_refused(where, other):
    config = given(where, max_seq_len=10)
    message = (
        "`model_config` asks for max_seq_len=10, but the options of `use_attention` for "
        f"max_seq_len={other}: expected the same. Use `use_attention(config, max_seq_len=10)`"
    )
    with refuses(config, ValueError, message):
        use_attention(config, max_seq_len=other)
    with refuses(config, ValueError, "for max_seq_len=20"):
        use_attention(config, AttentionConfig.gtrxl())
    assert length(use_attention(config, AttentionConfig.gtrxl(), max_seq_len=10)) == 10


@pytest.mark.parametrize("where", SPECS)
def test_the_default_of_a_default_model_config_is_nobodys_word(where):
    """It cannot be told from a 20 that the user wrote."""
    for model_config in ({}, {"max_seq_len": 20}):
        assert length(use_attention(given(where, **model_config))) == 61
        config = use_attention(given(where, **model_config), max_seq_len=32)
        assert length(config) == built_model_config(config)["max_seq_len"] == 32


def test_a_specs_own_word_comes_before_that_for_all_modules():
    config = given("dict of a spec", max_seq_len=10).rl_module(model_config={"max_seq_len": 30})
    assert length(use_attention(config)) == 10


@pytest.mark.parametrize("where", ["dict", "dict of a spec"])
def test_a_length_of_a_wrong_type(where):
    config = given(where, max_seq_len="ten")
    with refuses(config, TypeError, "AttentionConfig.max_seq_len must be an int, got 'ten'"):
        use_attention(config)


@pytest.mark.parametrize("where", ["dict", "dict of a spec"])
def test_a_searched_length_in_a_model_config_stays_searched(where):
    search = tune.grid_search([16, 32])
    config = use_attention(given(where, max_seq_len=search))
    # Tune resolves what is in the `model_config` of all modules.
    assert config.model_config["max_seq_len"] == search
    assert "max_seq_len" not in (config._rl_module_spec.model_config or {})


def multi_agent(**own) -> PPOConfig:
    specs = {mid: RLModuleSpec(model_config=model_config) for mid, model_config in own.items()}
    config = PPOConfig().multi_agent(policies={"p0", "p1"})
    return config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))


def test_modules_that_ask_for_different_lengths_need_a_call_each():
    config = multi_agent(p0={"max_seq_len": 10}, p1={"max_seq_len": 30})
    message = (
        "but their `model_config`s ask for different ones: {'p0': 10, 'p1': 30}. Use one call for "
        "each: `use_attention(config, module_ids=['p0'])`"
    )
    with refuses(config, ValueError, message):
        use_attention(config)
    use_attention(config, module_ids=["p0"])
    use_attention(config, module_ids=["p1"])
    assert lengths(config) == {"p0": 10, "p1": 30}


def test_modules_that_say_nothing_take_the_length_of_the_others():
    assert lengths(use_attention(multi_agent(p1={"max_seq_len": 10}))) == {"p0": 10, "p1": 10}


def test_an_earlier_calls_choice_is_nobodys_word():
    config = PPOConfig().multi_agent(policies={"p0", "p1"}).training(minibatch_size=512)
    use_attention(config, module_ids=["p0"], window=tune.grid_search([64, 128]))
    assert config.model_config["max_seq_len"] == 250
    use_attention(config, module_ids=["p1"], window=8)
    assert model_config_of(config, "p1")["max_seq_len"] == 63
    assert model_config_of(config, "p0")["max_seq_len"] == 250


def built_model_config(config: PPOConfig) -> dict:
    """What RLlib hands to the module."""
    spec = config.get_multi_rl_module_spec(spaces={"default_policy": (VECTOR, DISCRETE)})
    return spec.rl_module_specs["default_policy"].model_config
