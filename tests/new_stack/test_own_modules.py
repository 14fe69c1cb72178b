"""Modules that are not RLlib's defaults: action masks, and an encoder in a module of one's own."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
from torch import nn

from rllib_attention import AttentionConfig, AttentionEncoderConfig
from rllib_attention.new_stack.connectors import AddContextToTrainBatch, AddRolloutContext
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from tests.harness import PARITY, RandomEnv, build, prepare, worst_mismatch

MASKED = gym.spaces.Dict(
    {
        "action_mask": gym.spaces.Box(0.0, 1.0, (4,), np.float32),
        "observations": gym.spaces.Box(-1.0, 1.0, (3,), np.float32),
    }
)


class MaskedEnv(RandomEnv):
    """Allows one or two of four actions at a time."""

    def __init__(self, config=None):
        super().__init__({**(config or {}), "observation_space": MASKED})

    def reset(self, *, seed=None, options=None):
        obs, infos = super().reset(seed=seed, options=options)
        return self._masked(obs), infos

    def step(self, action):
        assert self._mask[action] == 1, "an action that the mask forbids"
        obs, *rest = super().step(action)
        return self._masked(obs), *rest

    def _masked(self, obs):
        self._mask = np.zeros(4, np.float32)
        self._mask[self.np_random.integers(4, size=2)] = 1
        return {**obs, "action_mask": self._mask}


@pytest.mark.parametrize("shared", [True, False])
def test_action_masks_reach_the_head_and_observations_the_encoder(stop, shared):
    config = prepare(PPOConfig(), MaskedEnv)
    config.rl_module(
        rl_module_spec=RLModuleSpec(module_class=ActionMaskingTorchRLModule),
        model_config={
            "vf_share_layers": shared,
            "fcnet_hiddens": [16],
            "head_fcnet_hiddens": [],
        },
    )
    config.training(train_batch_size_per_learner=128, minibatch_size=64, num_epochs=1)
    algo = stop(build(config))
    assert worst_mismatch(algo, iterations=1, num_timesteps=90) < PARITY


class OwnModule(TorchRLModule, ValueFunctionAPI):
    """A policy and a value on an attention encoder."""

    def setup(self):
        tokenizer = PPOCatalog.get_tokenizer_config(
            self.observation_space, vars(DefaultModelConfig(fcnet_hiddens=[16]))
        )
        self.encoder = AttentionEncoderConfig(
            attention=AttentionConfig(**self.model_config["options"]),
            tokenizer_config=tokenizer,
            observation_space=self.observation_space,
            action_space=self.action_space,
        ).build()
        dim = self.encoder.config.attention.dim
        self.pi, self.vf = nn.Linear(dim, int(self.action_space.n)), nn.Linear(dim, 1)

    def get_initial_state(self):
        return self.encoder.get_initial_state()

    def _forward(self, batch, **kwargs):
        out = self.encoder(batch)
        result = {Columns.ACTION_DIST_INPUTS: self.pi(out[ENCODER_OUT])}
        if Columns.STATE_OUT in out:
            result[Columns.STATE_OUT] = out[Columns.STATE_OUT]
        return result

    def compute_values(self, batch, embeddings=None):
        return self.vf(self.encoder(batch)[ENCODER_OUT]).squeeze(-1)


def own_config(**options):
    config = prepare(PPOConfig())
    config.training(train_batch_size_per_learner=128, minibatch_size=64, num_epochs=1)
    small = {"dim": 16, "num_heads": 2, "num_layers": 2, "window": 5, "ffn_dim": 16}
    return config.rl_module(
        rl_module_spec=RLModuleSpec(module_class=OwnModule),
        model_config={"max_seq_len": 16, "options": small | options},
    )


def test_our_connectors_alone_make_an_own_module_exact(stop):
    config = own_config(prev_actions=2)
    config.env_runners(
        env_to_module_connector=lambda env, spaces, device: AddRolloutContext(),
        episode_lookback_horizon=AttentionConfig(num_layers=2, window=5).history_len + 2,
    )
    config.learners(learner_connector=lambda obs, actions: AddContextToTrainBatch())
    assert worst_mismatch(stop(config.build_algo()), num_timesteps=90) < PARITY


def test_without_our_connectors_an_own_module_is_as_exact(stop):
    """RLlib then stores each step's context in its episodes: dear, but the same function."""
    algo = stop(own_config().build_algo())
    assert worst_mismatch(algo, num_timesteps=90) < PARITY


def test_a_chunk_length_must_be_given():
    space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    module = OwnModule(
        observation_space=space,
        action_space=gym.spaces.Discrete(2),
        model_config={"options": {"dim": 16, "num_heads": 2}},
    )
    with pytest.raises(ValueError, match=r"needs the length of its training chunks.*max_seq_len"):
        inspect_module(module)


def test_the_part_that_an_encoder_reads_must_be_clear():
    box = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    module = OwnModule(
        observation_space=box,
        action_space=gym.spaces.Discrete(2),
        model_config={"max_seq_len": 8, "options": {"dim": 16, "num_heads": 2}},
    )
    module.observation_space = gym.spaces.Dict({"a": box, "b": gym.spaces.Discrete(2)})
    path = inspect_module(module).observation_path
    assert path == ("a",)
    twins = {"a": gym.spaces.Box(-1.0, 1.0, (3,)), "b": gym.spaces.Box(-1.0, 1.0, (3,))}
    module.observation_space = gym.spaces.Dict(twins)
    with pytest.raises(ValueError, match="one entry of the module's observation space, got 2"):
        inspect_module(module)


def test_a_flat_state_is_the_state_of_actor_and_critic(stop):
    """Also where RLlib wants that of a separate critic below its own key."""
    config = prepare(PPOConfig()).rl_module(model_config={"vf_share_layers": False})
    algo = stop(build(config))
    module = algo.learner_group._learner.module[DEFAULT_MODULE_ID]  # a runner has no critic
    state = {key: torch.as_tensor(v).unsqueeze(0) for key, v in module.get_initial_state().items()}
    batch = {Columns.OBS: torch.zeros(1, 1, 3), Columns.STATE_IN: state}
    out = module.forward_inference(batch)
    assert out[Columns.STATE_OUT].keys() == state.keys()
    values = module.compute_values({**batch, Columns.STATE_IN: {**state, "critic": state}})
    assert values.shape == (1, 1)
