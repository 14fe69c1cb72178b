"""What is changed after `use_attention` is found when the algorithm is built."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_attention import use_attention
from rllib_attention.new_stack.built_checks import check_built
from tests.harness import build, prepare


def refuses(message):
    return pytest.raises(ValueError, match=re.escape(message))


def check(config, module_ids=None) -> None:
    """Checks a config as if an algorithm had been built from it."""
    check_built(SimpleNamespace(config=config, env_runner_group=None), module_ids)


def two_modules() -> PPOConfig:
    return PPOConfig().multi_agent(policies={"p0", "p1"})


def test_what_was_left_alone_passes():
    check(use_attention(PPOConfig()))
    check(use_attention(two_modules()))
    check(use_attention(two_modules(), module_ids=["p0"]), ["p0"])


def test_settings():
    config = use_attention(PPOConfig(), max_seq_len=64).training(minibatch_size=16)
    with refuses("`minibatch_size` must be at least 65 with `max_seq_len` 64"):
        check(config)


def test_offline_settings():
    config = SACConfig().offline_data(input_=["/recorded"], input_read_episodes=True)
    use_attention(config, num_layers=1, window=9)
    check(config)
    config.offline_data(prelearner_buffer_kwargs={"history_len": 7})
    with refuses("must hold a `history_len` of at least the 8 steps"):
        check(config)


def test_lookback_in_recorded_episodes():
    """A search space may not have said how long its windows are; the context would be cut."""
    config = BCConfig().offline_data(input_=["/recorded"], input_read_episodes=True)
    use_attention(config, num_layers=1, window=9)
    check(config)
    with refuses("`episode_lookback_horizon` must be at least the 8 steps"):
        check(config.env_runners(episode_lookback_horizon=7))
    check(use_attention(PPOConfig(), window=9).env_runners(episode_lookback_horizon=1))


def test_lookback_where_learners_share_fragments():
    """They were one when attention was added, and fragments stayed whole."""
    config = use_attention(PPOConfig(), window=32, dilation=32)
    check(config)
    with refuses("`episode_lookback_horizon` must be at least the 1023 steps"):
        check(config.learners(num_learners=2))
    check(config.env_runners(episode_lookback_horizon=1023))


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("env_runners", {"env_to_module_connector": lambda *args: MeanStdFilter()}),
        ("learners", {"learner_connector": None}),
    ],
)
def test_connectors(method, setting):
    config = use_attention(PPOConfig())
    getattr(config, method)(**setting)
    [name] = setting
    with refuses(f"The connectors of `use_attention` are gone: `config.{name}` was set after it."):
        check(config)


@pytest.mark.parametrize(
    "replaced", [{"model_config": {"fcnet_hiddens": [8]}}, {"rl_module_spec": RLModuleSpec()}]
)
def test_modules(replaced):
    """RLlib would train an MLP without a word."""
    config = use_attention(prepare(PPOConfig())).rl_module(**replaced)
    with refuses("The attention of modules ['default_policy'] is gone"):
        config.build_algo()


def test_one_of_several_modules():
    config = use_attention(two_modules(), module_ids=["p0", "p1"])
    config._rl_module_spec.rl_module_specs["p1"] = RLModuleSpec()
    with refuses("The attention of modules ['p1'] is gone"):
        check(config, ["p0", "p1"])
    check(config, ["p0"])


def test_modules_that_came_later():
    """One spec for all describes them, too; specs by id do not."""
    policies = {"p0", "p1", "p2"}
    check(use_attention(two_modules()).multi_agent(policies=policies))
    multi = MultiRLModuleSpec(rl_module_specs={"p0": RLModuleSpec()})
    config = use_attention(two_modules().rl_module(rl_module_spec=multi))
    with refuses("The attention of modules ['p2'] is gone"):
        check(config.multi_agent(policies=policies))


def test_frame_stacking():
    config = prepare(PPOConfig(), observation_space=spaces.Box(0, 255, (42, 42, 1), np.uint8))
    config.rl_module(model_config={"conv_filters": [[4, 8, 4], [8, 4, 2]]})
    config.env_runners(
        env_to_module_connector=lambda env, spaces, device: FrameStackingEnvToModule(num_frames=3)
    )
    with refuses("FrameStacking writes its stacks elsewhere. Leave it out"):
        build(config)
