"""The exported step acts as its policy: all spaces, options and pieces, far beyond the context."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter

from rllib_attention import AttentionConfig, AttentionPolicy, use_attention
from rllib_attention.export import PolicyStep, export_step
from rllib_attention.nn.positions import POSITIONS
from tests.export.sessions import assert_same, play
from tests.policies import (
    CASES,
    NESTED,
    SMALL,
    VECTOR,
    WITH_PAST,
    config_of,
    random_policy,
    take_sides,
    two_agents,
    with_pieces,
)

BOUNDED = Box(-9.0, 9.0, (2,), np.float32)


def step_of(policy):
    """Returns a policy's step on arrays, and inputs of three new sessions."""
    step = PolicyStep(policy._parts)

    @torch.no_grad()
    def run(arrays):
        outputs = step({name: torch.from_numpy(array) for name, array in arrays.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run, step.example(3)


def options(**changes):
    return AttentionConfig.from_dict(SMALL.to_dict() | changes)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("gate", ["residual", "gru"])
@pytest.mark.parametrize("dilation", [1, 3])
def test_every_model(position, gate, dilation):
    model = {"position": position, "gate": gate, "dilation": dilation}
    policy = random_policy(options(**model), actions=BOUNDED)
    assert_same(play(policy, *step_of(policy)))


@pytest.mark.parametrize("depths", [(1, 0), (0, 1), (3, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("window", [1, 3])
def test_previous_actions_and_rewards(depths, window):
    names = dict(zip(("prev_actions", "prev_rewards"), depths, strict=True))
    policy = random_policy(options(window=window, **names), actions=BOUNDED)
    assert_same(play(policy, *step_of(policy)))


@pytest.mark.parametrize(
    "actions",
    [
        Discrete(5),
        MultiDiscrete([3, 4]),
        NESTED,
        Tuple([Discrete(3), Discrete(2)]),
        Box(-2.0, 5.0, (3,), np.float32),
        Box(-np.inf, np.inf, (2,), np.float32),
    ],
    ids=str,
)
def test_every_action_space(actions):
    policy = random_policy(WITH_PAST, actions=actions)
    with torch.no_grad():
        for weight in policy.module.pi.parameters():
            weight *= 5  # so that actions take sides
    assert_same(play(policy, *step_of(policy)))


def test_images():
    policy = random_policy(SMALL, Box(0, 255, (42, 42, 3), np.uint8), BOUNDED)
    run, example = step_of(policy)
    assert example["obs"].dtype == torch.uint8
    assert_same(play(policy, run, example, num_steps=10))


MIXED = Dict({"x": Discrete(4), "y": Box(-3.0, 9.0, (2,), np.float32), "z": MultiDiscrete([2, 3])})
LEARNED = {
    "flattened-and-filtered": lambda: config_of(
        with_pieces(PPOConfig(), FlattenObservations, MeanStdFilter), MIXED, BOUNDED
    ),
    "sac": CASES["sac"],
    "dqn": CASES["dqn"],
}


@pytest.mark.parametrize("name", LEARNED)
def test_algorithms_and_their_pieces(name, stop):
    algo = stop(LEARNED[name]().build_algo())
    if name != "dqn":  # whose fresh values differ from state to state already
        take_sides(algo, scale=0.2)
    algo.env_runner.sample(num_timesteps=20)  # filters have seen something
    policy = AttentionPolicy(algo)
    assert_same(play(policy, *step_of(policy)))


def agents_policy(stop, module_id):
    """The policy of one of two modules, behind a filter that has seen something."""
    algo = stop(use_attention(two_agents(), WITH_PAST).build_algo())
    take_sides(algo, scale=0.5)
    algo.env_runner.sample(num_timesteps=20)
    return AttentionPolicy(algo, module_id=module_id)


@pytest.mark.parametrize("module_id", ["p", "q"])
def test_one_module_of_several(module_id, stop):
    policy = agents_policy(stop, module_id)
    stats = policy._parts.env_to_module[MeanStdFilter][0].get_state()[policy._parts.agent_id]
    assert stats["running_stats"][0]["num_pushes"] > 10
    assert_same(play(policy, *step_of(policy)))


def test_a_batch_of_any_size_and_weights_of_its_own():
    policy = random_policy(WITH_PAST, actions=BOUNDED)
    step = PolicyStep(policy._parts)
    exported = export_step(step).module()
    for size in (1, 2, 7):
        inputs = {
            name: torch.randn(x.shape) if x.is_floating_point() else torch.arange(size)
            for name, x in step.example(size).items()
        }
        expected, found = step(inputs), exported(inputs)
        assert list(expected) == list(found)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        for weight in policy.module.parameters():
            weight.zero_()
    assert torch.equal(exported(inputs)["actions"], found["actions"])


# Errors


def says(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}")


class OwnPiece(ConnectorV2):
    """Could do anything."""

    def __call__(self, *, batch, **kwargs):
        return batch


class OwnFilter(MeanStdFilter):
    """Derives from a known piece, and could do anything as well."""


@pytest.mark.parametrize("piece", [OwnPiece, OwnFilter])
def test_pieces_that_are_not_known(piece, stop):
    algo = stop(config_of(with_pieces(PPOConfig(), piece), VECTOR, Discrete(2), SMALL).build_algo())
    with says(
        f"A policy cannot be exported with its connector piece {piece.__name__}: of those that "
        "change something, ['FlattenObservations', 'MeanStdFilter'] can. Fix: act with "
    ):
        AttentionPolicy(algo).export()


def test_spaces_that_cannot_be_exported(stop):
    space = gym.spaces.Dict({"a": VECTOR, "b": gym.spaces.Text(3)})
    policy = random_policy(SMALL)
    policy._parts.env_to_module.input_observation_space = space
    with says(
        "A policy can be exported with spaces of Box, Discrete, MultiDiscrete and MultiBinary "
        "parts, but 'obs.b' is Text("
    ):
        policy.export()
