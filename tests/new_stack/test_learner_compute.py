"""The composed learner compiles where it is told to, and trains in mixed precision."""

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch._dynamo.utils import counters

from rllib_attention.new_stack.connectors.attention_module import inspect_module
from tests.new_stack.test_learner import TIMESTEPS, build


def batch_of(learner, num_steps=20):
    """Returns a learner's own batch of a random episode."""
    rng = np.random.default_rng(0)
    episode = SingleAgentEpisode(
        observations=list(rng.uniform(-1, 1, (num_steps + 1, 3)).astype(np.float32)),
        actions=list(rng.integers(0, 2, num_steps)),
        rewards=list(rng.normal(size=num_steps)),
        extra_model_outputs={
            Columns.ACTION_LOGP: list(rng.normal(-1, 0.1, num_steps).astype(np.float32)),
            Columns.ACTION_DIST_INPUTS: list(rng.normal(size=(num_steps, 2)).astype(np.float32)),
        },
        terminated=True,
        len_lookback_buffer=0,
    ).to_numpy()
    return learner._make_batch_if_necessary(TrainingData(episodes=[episode])).policy_batches


def losses(learner, num_updates=2):
    """Trains on one batch; returns the losses."""
    torch.manual_seed(0)
    learner.before_gradient_based_update(timesteps=TIMESTEPS)
    found = []
    for _ in range(num_updates):
        _, loss, _ = learner._update(batch_of(learner))
        found.append(float(loss["default_policy"]))
    return found


def plain_critic(config):
    return config.training(use_kl_loss=False, lr=1e-2)


def test_compiling_learners_compile_and_learn_the_same():
    """RLlib's own `build` compiles nothing."""

    def compiled(config):
        config.framework(torch_compile_learner=True, torch_compile_learner_dynamo_backend="eager")
        return plain_critic(config)

    expected = losses(build(change=plain_critic))
    counters.clear()
    assert losses(build(change=compiled, plain=True)) == pytest.approx(expected, abs=1e-5)
    assert not counters["stats"]["unique_graphs"]
    learner = build(change=compiled)
    assert losses(learner) == pytest.approx(expected, abs=1e-5)
    assert counters["stats"]["unique_graphs"]
    assert abs(expected[0] - expected[1]) > 1e-4, "a step was taken between"
    assert not counters["graph_break"]


@pytest.mark.parametrize("gate", ["residual", "gru"])
def test_a_learner_under_autocast(gate):
    """As RLlib's examples mix precisions: there is no setting, but `_update` can be wrapped."""

    class Mixed(PPOTorchLearner):
        def _update(self, batch, **kwargs):
            with torch.autocast("cpu", torch.bfloat16):
                return super()._update(batch, **kwargs)

    seen = []
    learner = build(change=plain_critic, learner_class=Mixed, gate=gate)
    [encoder, *_] = inspect_module(learner.module["default_policy"]).encoders
    linear = encoder.transformer.blocks[0].attention.look
    linear.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    expected = losses(build(change=plain_critic, gate=gate))
    found = losses(learner)
    assert set(seen) == {torch.bfloat16}
    assert found == pytest.approx(expected, rel=0.05, abs=0.05)
    assert found != pytest.approx(expected, rel=1e-6)
    assert all(p.dtype is torch.float32 for p in learner._params.values())
