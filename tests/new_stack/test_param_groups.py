"""What blocks write has a share of the learning rate, whatever RLlib or a checkpoint does."""

import logging

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

from rllib_attention import AttentionConfig
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from rllib_attention.new_stack.param_groups import split_groups
from tests.new_stack.test_learner import CLOSE, build, step


def is_written(learner):
    """Says of each parameter whether it is of what a block writes, by its name."""
    # SAC's temperature has no name.
    names = {p: name for name, p in learner.module["default_policy"].named_parameters()}
    of_params = [names.get(p, "") for p in learner._params.values()]
    looks = ("attention.look", "attention.position")
    return ["transformer.blocks" in x and not any(y in x for y in looks) for x in of_params]


def moved(learner, num_steps=4):
    before = [p.detach().clone() for p in learner._params.values()]
    for seed in range(num_steps):
        after = step(learner, seed)
    return [new - old for new, old in zip(after, before, strict=True)]


def optimizers(learner):
    return [found for _, found in learner.get_optimizers_for_module("default_policy")]


def rates(learner):
    return [[group["lr"] for group in found.param_groups] for found in optimizers(learner)]


@pytest.mark.parametrize("name", ["ppo", "impala", "dqn", "sac", "iql"])
def test_blocks_move_by_a_share_and_all_else_as_before(name):
    # Relative positions have weights of their own.
    options = {"position": "relative", "gate": "gru"}
    slow, full = build(name, lr_factor=0.25, **options), build(name, **options)
    shares = [0.25 if is_slow else 1.0 for is_slow in is_written(slow)]
    assert set(shares) == {0.25, 1.0}
    # Adam's steps depend on gradients alone, and those are the same.
    for ours, theirs, share in zip(moved(slow), moved(full), shares, strict=True):
        assert theirs.abs().max() > 1e-5
        torch.testing.assert_close(ours, share * theirs, rtol=1e-2, atol=5e-7)  # of weights near 1


@pytest.mark.parametrize("name", ["ppo", "impala", "dqn", "sac", "iql"])
def test_the_default_is_lower_on_the_sequence_path_alone(name):
    learner = build(name, lr_factor=None)
    found = inspect_module(learner.module["default_policy"])
    factor = AttentionConfig().for_path(windowed=found.windowed).lr_factor
    assert (factor < 1) == (name in ("ppo", "impala"))
    split = [of_optimizer for of_optimizer in rates(learner) if len(of_optimizer) > 1]
    assert split
    for rest, slow in split:
        assert slow == pytest.approx(factor * rest)


def test_gtrxl_has_one_rate():
    assert AttentionConfig.gtrxl().for_path(windowed=False).lr_factor == 1.0


def test_a_schedule_moves_both_rates():
    schedule = [[0, 1e-3], [100, 1e-4]]
    learner = build("ppo", lr_factor=0.5, change=lambda config: config.training(lr=schedule))
    assert rates(learner) == [[1e-3, 5e-4]]
    for _ in range(2):  # the second time nothing is left to change
        learner.after_gradient_based_update(timesteps={"num_env_steps_sampled_lifetime": 200})
        assert rates(learner) == [[pytest.approx(1e-4), pytest.approx(5e-5)]]


class GroupsLearner(PPOTorchLearner):
    """Registers an optimizer with groups of its own."""

    def configure_optimizers_for_module(self, module_id, config=None):
        parameters = self.get_parameters(self.module[module_id])
        groups = [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "lr": 0.2}]
        self.register_optimizer(
            module_id=module_id, optimizer=torch.optim.Adam(groups), params=parameters
        )


@pytest.mark.parametrize(("factor", "warnings"), [(0.5, 1), (1.0, 0)])
def test_groups_of_an_own_optimizer_are_left_alone_with_a_warning(factor, warnings, caplog):
    with caplog.at_level(logging.WARNING):
        learner = build("ppo", learner_class=GroupsLearner, lr_factor=factor)
    assert rates(learner) == [[0.1, 0.2]]
    assert sum("`lr_factor` of attention is not applied" in text for text in caplog.messages) == (
        warnings
    )


def test_an_optimizer_without_blocks_is_left_alone():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    split_groups(optimizer, {torch.nn.Parameter(torch.zeros(1)): 0.5})
    assert len(optimizer.param_groups) == 1


def test_the_factor_is_that_of_the_config_and_not_of_the_checkpoint():
    saved, learner = build("ppo", lr_factor=0.5), build("ppo", lr_factor=0.1)
    step(saved, 0)
    learner.set_state(saved.get_state())
    [[rest, blocks]] = rates(learner)
    assert blocks == pytest.approx(0.1 * rest)


def test_a_state_has_one_group_and_moments_in_the_order_of_the_parameters():
    learner, plain = build("ppo", lr_factor=0.5), build("ppo", plain=True)
    for seed in range(3):
        step(learner, seed), step(plain, seed)
    [ours], [expected] = (
        [found["state"] for found in of.get_state()["optimizer"].values()]
        for of in (learner, plain)
    )
    assert len(ours["param_groups"]) == 1
    assert ours["param_groups"][0].keys() == expected["param_groups"][0].keys()
    assert ours["state"].keys() == expected["state"].keys()
    for i, moments in expected["state"].items():
        np.testing.assert_allclose(ours["state"][i]["exp_avg"], moments["exp_avg"], rtol=1e-5)


def test_training_goes_on_after_a_restore():
    first, second = build("ppo", lr_factor=0.5), build("ppo", lr_factor=0.5)
    for seed in range(3):
        step(first, seed)
    second.set_state(first.get_state())
    for ours, expected in zip(step(second, 3), step(first, 3), strict=True):
        torch.testing.assert_close(ours, expected, **CLOSE)


def test_a_state_of_another_number_of_tensors_is_refused():
    saved, learner = build("ppo"), build("ppo", num_layers=2)
    state = learner.get_state()
    state["optimizer"] = saved.get_state()["optimizer"]
    had = len(saved._params)
    with pytest.raises(ValueError, match=rf"has {had} tensors.*Fix: restore the weights"):
        learner.set_state(state)
