"""PPO's KL penalty adapts to what the policy changed, not to the noise of dropout."""

import math

import pytest
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

from rllib_attention import use_attention
from rllib_attention.new_stack.kl_noise import KL_OF_DROPOUT, KLNoiseMixin
from rllib_attention.new_stack.learner import attention_learner

PENALTY = 0.2


def train(stop, *, dropout=0.1, lr=1e-12, learner_class=None, **training):
    """Returns what a PPO learner reports of one iteration; with this lr no policy changes."""
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .rl_module(model_config={"fcnet_hiddens": [8], "vf_share_layers": True})
        .training(
            lr=lr,
            train_batch_size_per_learner=1024,
            minibatch_size=512,  # few steps make a rough estimate of both divergences
            num_epochs=2,
            kl_coeff=PENALTY,
            kl_target=1e-4,
            **training,
        )
        .debugging(seed=0)
    )
    use_attention(config, dim=8, num_heads=2, window=4, dropout=dropout)
    if learner_class:
        config.learners(learner_class=learner_class)
    return stop(config.build_algo()).train()["learners"]["default_policy"]


def test_noise_alone_does_not_raise_the_penalty(stop):
    result = train(stop)
    noise, kl = result[KL_OF_DROPOUT], result["mean_kl_loss"]
    assert noise > 2e-4  # above what makes RLlib raise the coefficient
    assert 0 <= kl < 0.5 * noise
    assert result["curr_kl_coeff"] < 1.01 * PENALTY  # a float32; raised, it is 1.5 times as much


def test_rllibs_own_learner_takes_the_noise_for_a_change(stop):
    result = train(stop, learner_class=PPOTorchLearner)
    assert result["mean_kl_loss"] > 2e-4
    assert result["curr_kl_coeff"] == pytest.approx(1.5 * PENALTY)


def test_a_change_of_the_policy_raises_it(stop):
    result = train(stop, dropout=0.05, lr=0.05)
    assert result["mean_kl_loss"] > 2e-4
    assert result["curr_kl_coeff"] == pytest.approx(1.5 * PENALTY)


def test_without_dropout_or_penalty_nothing_is_reported(stop):
    assert KL_OF_DROPOUT not in train(stop, dropout=0.0)
    assert KL_OF_DROPOUT not in train(stop, use_kl_loss=False)


def test_a_divergence_that_is_no_number_stays_one(stop):
    class Spoilt(PPOTorchLearner):
        def compute_loss_for_module(self, *, module_id, **kwargs):
            loss = super().compute_loss_for_module(module_id=module_id, **kwargs)
            key = (module_id, "mean_kl_loss")
            self.metrics.log_value(key, self.metrics.peek(key) * math.nan, window=1)
            return loss

    assert math.isnan(train(stop, learner_class=attention_learner(Spoilt))["mean_kl_loss"])


def test_only_where_the_acting_weights_are_the_trained_ones():
    assert issubclass(attention_learner(PPOConfig().learner_class), KLNoiseMixin)
    # APPO's batches are older than its weights: its first divergence is no noise.
    assert not issubclass(attention_learner(APPOConfig().learner_class), KLNoiseMixin)
