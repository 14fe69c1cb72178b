"""The measure of parity itself: it must see a cache that was not refreshed."""

from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention.encoder.weights import Weights
from tests.harness import PARITY, build, mismatch, prepare, sample


def test_a_stale_cache_is_seen(stop, monkeypatch):
    config = prepare(PPOConfig()).training(
        lr=0.01, train_batch_size_per_learner=128, minibatch_size=64, num_epochs=2
    )
    algo = stop(build(config))
    assert mismatch(algo, sample(algo, num_timesteps=60)) < PARITY
    # Weights seem never to change, so that nothing is ever computed anew.
    monkeypatch.setattr(Weights, "fingerprint", lambda self: [])
    sample(algo, num_timesteps=30)
    algo.train()
    assert mismatch(algo, sample(algo, num_timesteps=60)) > 1e-3
