"""The same seed on the same machine gives the same run, bit for bit, with a local runner."""

import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import use_attention


def trained_weights(stop, seed):
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .rl_module(model_config={"fcnet_hiddens": [16], "vf_share_layers": True})
        .training(train_batch_size_per_learner=256, minibatch_size=64, num_epochs=2, lr=0.01)
        .debugging(seed=seed)
    )
    use_attention(config, dim=16, num_heads=2, window=8, dropout=0.2, prev_actions=1)
    algo = stop(config.build_algo())
    results = [algo.train() for _ in range(2)]
    return results[-1]["env_runners"]["episode_return_mean"], algo.get_weights()["default_policy"]


@pytest.mark.slow
def test_ppo_repeats_itself(stop):
    (mean, weights), (again, same) = (trained_weights(stop, seed=3) for _ in range(2))
    assert mean == again
    for name, value in weights.items():
        np.testing.assert_array_equal(value, same[name], err_msg=name)
    _, others = trained_weights(stop, seed=4)
    assert any(not np.array_equal(value, others[name]) for name, value in weights.items())
