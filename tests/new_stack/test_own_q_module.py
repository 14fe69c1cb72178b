"""A Q-learning module from scratch around an `AttentionEncoder`, and what is said of its errors."""

import re

import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import (
    QF_NEXT_PREDS,
    QF_PREDS,
    QF_TARGET_NEXT_PREDS,
)
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from rllib_attention import AttentionConfig, AttentionEncoderConfig, AttentionPolicy
from rllib_attention.new_stack.connectors import AddRolloutContext, AddWindowsToTrainBatch
from rllib_attention.new_stack.replay_buffers import upgrade_replay_buffer
from tests.harness import PARITY, prepare
from tests.pair import window_mismatch

ATTENTION = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=5, ffn_dim=16)
RUN_LEN = 4


class OwnQModule(TorchRLModule, QNetAPI, TargetNetworkAPI, InferenceOnlyAPI):
    """The action values of one attention encoder, as `docs/own_rlmodules.md` has it."""

    windowed = True

    def setup(self):
        tokenizer = DQNCatalog.get_tokenizer_config(
            self.observation_space, vars(DefaultModelConfig(fcnet_hiddens=[16]))
        )
        self.encoder = AttentionEncoderConfig(
            attention=ATTENTION,
            tokenizer_config=tokenizer,
            observation_space=self.observation_space,
            action_space=self.action_space,
            windowed=self.windowed,
        ).build()
        self.q = nn.Linear(ATTENTION.dim, int(self.action_space.n))

    def make_target_networks(self):
        self._target_encoder = make_target_network(self.encoder)
        self._target_q = make_target_network(self.q)

    def get_target_network_pairs(self):
        return [(self.encoder, self._target_encoder), (self.q, self._target_q)]

    def get_non_inference_attributes(self):
        return ["_target_encoder", "_target_q"]

    def compute_q_values(self, batch):
        return {QF_PREDS: self.q(self.encoder(batch)[ENCODER_OUT])}

    def forward_target(self, batch):
        return {QF_PREDS: self._target_q(self._target_encoder(batch)[ENCODER_OUT])}

    def _forward_inference(self, batch):
        return {Columns.ACTIONS: self.compute_q_values(batch)[QF_PREDS].argmax(-1)}

    def _forward_exploration(self, batch, t=None):
        best = self._forward_inference(batch)[Columns.ACTIONS]
        tried = torch.randint_like(best, int(self.action_space.n))
        return {Columns.ACTIONS: torch.where(torch.rand(best.shape) < 0.1, tried, best)}

    def _forward_train(self, batch):
        now, later = {Columns.OBS: batch[Columns.OBS]}, {Columns.OBS: batch[Columns.NEXT_OBS]}
        return {
            QF_PREDS: self.compute_q_values(now)[QF_PREDS],
            QF_NEXT_PREDS: self.compute_q_values(later)[QF_PREDS],
            QF_TARGET_NEXT_PREDS: self.forward_target(later)[QF_PREDS],
        }


class ForgotWindowed(OwnQModule):
    windowed = False


def with_past(algorithm, **kwargs):
    upgrade_replay_buffer(
        algorithm.local_replay_buffer, history_len=ATTENTION.history_len, run_len=RUN_LEN
    )


def own_config(*, module=OwnQModule, context=True, windows=True, past=True, max_seq_len=RUN_LEN):
    config = prepare(DQNConfig())
    config.training(train_batch_size_per_learner=16, num_steps_sampled_before_learning_starts=30)
    config.reporting(min_sample_timesteps_per_iteration=40, min_time_s_per_iteration=0)
    length = {} if max_seq_len is None else {"max_seq_len": max_seq_len}
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=module), model_config=length)
    if context:
        config.env_runners(
            env_to_module_connector=lambda env, spaces, device: AddRolloutContext(),
            episode_lookback_horizon=ATTENTION.history_len,
        )
    if windows:
        config.learners(learner_connector=lambda obs, actions: AddWindowsToTrainBatch())
    if past:
        config.callbacks(on_algorithm_init=with_past)
    return config


def test_windows_give_what_the_rollout_gave(stop):
    algo = stop(own_config().build_algo())
    module = algo.learner_group._learner.module["default_policy"]
    before = [weight.clone() for weight in module.parameters()]
    for _ in range(3):
        algo.train()
    moved = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert sum(moved) > 10
    assert module._target_encoder.is_target
    assert window_mismatch(algo.env_runner, module, num_timesteps=60) < PARITY
    policy = AttentionPolicy(algo)
    obs = policy.observation_space.sample()
    assert policy.action_space.contains(policy.act(obs))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": False}, "A window's tokens must have size 4"),
        ({"windows": False}, "Replayed runs have no observations of their own"),
        ({"past": False}, "A replayed transition has no past: its buffer was not upgraded"),
        ({"module": ForgotWindowed}, "AttentionEncoder needs the context of each observation"),
        ({"max_seq_len": None}, "needs the length of its training chunks"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_each_omission_is_an_error(changes, message, stop):
    with pytest.raises(Exception, match=re.escape(message)):  # noqa: PT012
        algo = stop(own_config(**changes).build_algo())
        for _ in range(5):
            algo.train()
