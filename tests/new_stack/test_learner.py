"""The composed learner does what RLlib's does: the same steps, norms, warnings and states."""

import logging
import math
import pickle

import pytest
import ray
import torch
from gymnasium import spaces
from ray import cloudpickle
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from rllib_attention import use_attention
from rllib_attention.new_stack.learner import AttentionLearnerMixin, attention_learner

SPACES = {
    "__env__": (spaces.Box(-1, 1, (3,)), spaces.Discrete(2)),
    "default_policy": (spaces.Box(-1, 1, (3,)), spaces.Discrete(2)),
}
BOXES = {key: (obs, spaces.Box(-1, 1, (1,))) for key, (obs, _) in SPACES.items()}
# One learning rate for all, as RLlib has it; `test_param_groups.py` has the others.
OPTIONS = {"dim": 8, "num_heads": 2, "num_layers": 1, "window": 3, "lr_factor": 1.0}
CONFIGS = {
    "ppo": PPOConfig,
    "impala": IMPALAConfig,  # clips by the global norm
    "dqn": DQNConfig,
    "sac": SACConfig,
    "iql": IQLConfig,
}
CLOSE = {"rtol": 1e-6, "atol": 1e-7}
TIMESTEPS = {"num_env_steps_sampled_lifetime": 0}


def build(name="ppo", *, plain=False, change=lambda config: config, learner_class=None, **options):
    """Builds a learner with attention: RLlib's own, or the composed one."""
    config = change(CONFIGS[name]())
    if name == "iql":
        config.offline_data(input_read_episodes=True)
    if learner_class:
        config.learners(learner_class=learner_class)
    given = config.learner_class
    use_attention(config, **OPTIONS | options)
    if plain:
        config.learners(learner_class=given)
    torch.manual_seed(0)
    return config.build_learner(spaces=BOXES if name in ("sac", "iql") else SPACES)


def step(learner, seed, factor=1.0, spoil=lambda gradients: None):
    """Hands random gradients to the learner; returns the weights after its step."""
    generator = torch.Generator().manual_seed(seed)
    gradients = {}
    for parameter in learner._params.values():
        gradients[parameter] = factor * torch.randn(parameter.shape, generator=generator)
    spoil(gradients)
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    learner.apply_gradients(learner.postprocess_gradients(gradients))
    return [p.detach().clone() for p in learner._params.values()]


def norms(learner):
    logged = learner.metrics.reduce()["default_policy"]
    return {key: value.peek() for key, value in logged.items() if key.startswith("gradients_")}


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_are_those_of_rllib(name):
    learners = build(name), build(name, plain=True)
    assert isinstance(learners[0], AttentionLearnerMixin)
    assert not isinstance(learners[1], AttentionLearnerMixin)
    before = [p.detach().clone() for p in learners[0]._params.values()]
    for seed in range(5):
        ours, expected = (step(learner, seed) for learner in learners)
    assert len(ours) > 10
    torch.testing.assert_close(ours, expected, **CLOSE)
    assert not any(torch.equal(x, y) for x, y in zip(ours, before, strict=True))
    ours, expected = map(norms, learners)
    assert ours.keys() == expected.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("name", "by", "clip", "log_gradients"),
    [
        ("ppo", "global_norm", None, True),
        ("ppo", "global_norm", 1e-3, False),
        ("sac", "global_norm", 1e-3, True),
        ("sac", "global_norm", 1e3, False),
        ("sac", "value", 1e-3, True),
        ("ppo", "norm", 1e-3, True),
    ],
)
def test_clipped_steps_are_those_of_rllib(name, by, clip, log_gradients):
    def change(config):
        config.training(grad_clip=clip, grad_clip_by=by)
        return config.reporting(log_gradients=log_gradients)

    learners = build(name, change=change), build(name, change=change, plain=True)
    # Adam forgets the scale of gradients, but not that of one among others.
    for seed, factor in enumerate((1.0, 1e-3, 10.0)):
        ours, expected = (step(learner, seed, factor) for learner in learners)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    ours, expected = map(norms, learners)
    assert ours.keys() == expected.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("name", "value", "skip"),
    [("ppo", math.nan, False), ("sac", math.inf, False), ("ppo", math.inf, True)],
)
def test_gradients_that_are_not_finite_may_be_treated_as_rllib_does(
    name, value, skip, caplog, monkeypatch
):
    """RLlib warns and puts numbers in their place, or hands them to the optimizer.

    We warn once an update, after its minibatches: to know, the device is waited for.
    """
    loggers = [logging.getLogger(name) for name in ("rllib_attention", "ray.rllib")]
    for logger in loggers:
        monkeypatch.setattr(logger, "propagate", True)

    def spoil(gradients):
        list(gradients.values())[3].view(-1)[0] = value

    def change(config):
        config.torch_skip_nan_gradients = skip
        config.log_gradients = False
        return config

    unchecked = {"change": change, "check_finite": False}
    learners = build(name, **unchecked), build(name, **unchecked, plain=True)
    texts = []
    for learner in learners:
        learner.before_gradient_based_update(timesteps=TIMESTEPS)
        step(learner, 0)
        for logger in loggers:
            caplog.set_level(logging.WARNING, logger.name)  # building a learner sets it
        caplog.clear()
        weights = step(learner, 1, spoil=spoil)
        learner.after_gradient_based_update(timesteps=TIMESTEPS)
        texts.append([record.getMessage() for record in caplog.records])
        weights = step(learner, 2)
        if learner is learners[0]:
            ours = weights
    torch.testing.assert_close(ours, weights, equal_nan=True, **CLOSE)
    assert [t.split(" ")[0] for t in texts[0]] == [t.split(" ")[0] for t in texts[1]][:1]
    assert bool(texts[0]) is not skip
    caplog.clear()
    step(learners[0], 3)
    learners[0].after_gradient_based_update(timesteps=TIMESTEPS)
    assert not caplog.records, "it is said once"


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_gradients_that_are_not_finite_end_training(name, value):
    def spoil(gradients):
        list(gradients.values())[-1].view(-1)[0] = value

    learner = build(name)
    for seed in range(5):
        step(learner, seed, spoil=spoil if seed in (2, 4) else lambda gradients: None)
    said = "RLModule 'default_policy' were not finite .*, first in pass 3 of 5 "
    with pytest.raises(ValueError, match=said):
        learner.after_gradient_based_update(timesteps=TIMESTEPS)
    step(learner, 5)
    learner.after_gradient_based_update(timesteps=TIMESTEPS)  # of an update without them


def test_parts_without_gradients_stay():
    learner = build()
    before = [p.detach().clone() for p in learner._params.values()]
    for parameter in list(learner._params)[:5]:
        parameter.requires_grad_(False)
    for parameter in learner._params:
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    learner.apply_gradients({})
    same = [torch.equal(x, y) for x, y in zip(before, learner._params.values(), strict=True)]
    assert same == [True] * 5 + [False] * (len(before) - 5)
    learner.module["default_policy"].requires_grad_(False)
    for parameter in learner._params:
        parameter.grad = None
    learner.apply_gradients({})  # all of them frozen


@pytest.mark.parametrize("name", ["ppo", "sac"])
@pytest.mark.parametrize(("writer", "reader"), [(True, False), (False, True), (False, False)])
def test_states_move_between_learners(name, writer, reader):
    """A checkpoint of RLlib's learner goes on here, and the reverse."""
    if reader and tuple(map(int, ray.__version__.split(".")[:2])) < (2, 56):
        pytest.skip("RLlib's own learner loses Adam's moments")
    first = build(name, plain=writer)
    for seed in range(3):
        step(first, seed)
    state = pickle.loads(pickle.dumps(first.get_state()))
    second = build(name, plain=reader)
    second.set_state(state)
    second.curr_log_alpha = getattr(first, "curr_log_alpha", None)
    ours, expected = step(second, 3), step(first, 3)
    is_alpha = [p.shape == (1,) for p in first._params.values()]
    for x, y, skipped in zip(ours, expected, is_alpha, strict=True):
        if not skipped:  # RLlib does not save SAC's temperature
            torch.testing.assert_close(x, y, **CLOSE)
    if not reader:
        assert all(group["fused"] for o in second._optimizer_parameters for group in o.param_groups)


class OwnLearner(PPOTorchLearner):
    """A user's, with an optimizer and hooks of its own."""

    def configure_optimizers_for_module(self, module_id, config=None):
        params = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.SGD(params, momentum=0.5)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=0.1
        )

    def postprocess_gradients_for_module(self, *, module_id, config=None, module_gradients_dict):
        return {p: 2 * g for p, g in module_gradients_dict.items()}

    def apply_gradients(self, gradients_dict):
        super().apply_gradients({p: g + 1 for p, g in gradients_dict.items()})


def test_a_learner_of_the_users_own_keeps_its_methods():
    learners = build(learner_class=OwnLearner), build(learner_class=OwnLearner, plain=True)
    assert isinstance(learners[0], AttentionLearnerMixin)
    for seed in range(3):
        ours, expected = (step(learner, seed) for learner in learners)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    assert type(learners[0].get_optimizer("default_policy")) is torch.optim.SGD


@pytest.mark.parametrize("option", ["foreach", "capturable", "differentiable", "fused"])
def test_a_choice_of_the_user_is_kept(option):
    class Chosen(PPOTorchLearner):
        def configure_optimizers_for_module(self, module_id, config=None):
            params = self.get_parameters(self.module[module_id])
            chosen = torch.optim.Adam(params, **{option: option != "fused"})
            self.register_optimizer(
                module_id=module_id, optimizer=chosen, params=params, lr_or_lr_schedule=0.1
            )

    group = build(learner_class=Chosen).get_optimizer("default_policy").param_groups[0]
    assert not group["fused"]


def test_schedulers_of_torch_are_stepped():
    def change(config):
        halved = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)  # noqa: E731
        return config.experimental(_torch_lr_scheduler_classes=[halved])

    learners = build(change=change), build(change=change, plain=True)
    for learner in learners:
        step(learner, 0)
        learner.after_gradient_based_update(timesteps={})
        step(learner, 1)
    assert learners[0].get_optimizer("default_policy").param_groups[0]["lr"] == 2.5e-5
    ours, expected = (step(learner, 2) for learner in learners)
    torch.testing.assert_close(ours, expected, **CLOSE)


def test_gradient_scalers_are_used():
    class Scaler(torch.amp.GradScaler):
        def __init__(self):
            super().__init__("cpu", init_scale=8.0)

    def change(config):
        return config.experimental(_torch_grad_scaler_class=Scaler)

    learner = build(change=change)
    loss = sum((p**2).sum() for p in learner._params.values())
    learner.apply_gradients(learner.compute_gradients({"default_policy": loss}))
    assert learner._grad_scalers["default_policy"].get_scale() == 8.0
    assert all(p.grad is not None for p in learner._params.values())


def test_one_class_for_each_class():
    composed = attention_learner(PPOTorchLearner)
    assert composed is attention_learner(PPOTorchLearner)
    assert attention_learner(composed) is composed
    assert composed.__name__ == "AttentionPPOTorchLearner"
    assert issubclass(composed, PPOTorchLearner)
    assert issubclass(cloudpickle.loads(cloudpickle.dumps(composed)), AttentionLearnerMixin)
    assert attention_learner(Learner) is Learner, "no torch"
    assert issubclass(attention_learner(TorchLearner), TorchLearner)
