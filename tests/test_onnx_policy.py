"""OnnxPolicy acts as the AttentionPolicy that wrote its file, and opening a file runs nothing."""

import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

from rllib_attention.onnx_policy import OnnxPolicy
from tests.policies import SMALL, VECTOR, WITH_PAST, assert_same, random_policy

MIXED = Dict({"a": Discrete(3), "b": Tuple([Box(-2.0, 3.0, (2,), np.float32), Discrete(2)])})


def exported(path, attention=WITH_PAST, observations=VECTOR, actions=MIXED):
    policy = random_policy(attention, observations, actions)
    with torch.no_grad():
        for weight in policy.module.pi.parameters():
            weight *= 5  # so that actions take sides
    policy.export_onnx(path)
    return policy, OnnxPolicy(path)


def played(policy, act_all, observations, rewards):
    """Acts in two sessions, one of which begins anew; the second misses every third step."""
    actions = []
    for step, (obs, reward) in enumerate(zip(observations, rewards, strict=True)):
        if step == 12:
            policy.reset("x")
        names = "x" if step % 3 == 2 else "xy"
        told = {n: reward for n in names if n in policy.sessions and not (n == "x" and step == 12)}
        actions.append(act_all(dict.fromkeys(names, obs), prev_reward=told))
    return actions


def test_it_acts_as_the_policy_does(tmp_path):
    policy, alone = exported(tmp_path / "policy.onnx")
    assert alone.reads_rewards
    rng = np.random.default_rng(0)
    observations = rng.uniform(-1, 1, (25, 3)).astype(np.float32)
    rewards = rng.normal(size=25)
    expected = played(policy, policy.act, observations, rewards)
    found = played(alone, alone.act_all, observations, rewards)
    assert_same(found, expected)
    assert len({str(step["x"]["a"]) for step in found}) > 1
    assert set(alone.sessions) == {"x", "y"}
    alone.close("x")
    assert alone.sessions == ("y",)
    assert_same([alone.act(observations[0])], [policy.act(observations[0])])


def test_observations_that_do_not_fit_move_nothing(tmp_path):
    _, alone = exported(tmp_path / "policy.onnx", actions=MultiDiscrete([2, 3]))
    alone.act(VECTOR.sample())
    for obs in (np.zeros(4), np.zeros((1, 3)), 1.0):
        with pytest.raises(ValueError, match=r"`act` expects 'obs' of shape \[3\], got"):
            alone.act(obs, prev_reward=0.0)
    with pytest.raises(ValueError, match=r"that of session None is missing. Fix: `act\(obs, prev"):
        alone.act(VECTOR.sample())
    assert alone.act_all({}) == {}


ALONE = """
import sys
from rllib_attention.onnx_policy import OnnxPolicy
policy = OnnxPolicy(sys.argv[1])
assert policy.act([0.0, 0.0, 0.0]) in (0, 1)
assert "torch" not in sys.modules
"""
WITHOUT_RAY = "import sys; sys.modules['ray'] = None\n"


def test_without_torch_and_ray(tmp_path):
    exported(tmp_path / "policy.onnx", SMALL, actions=Discrete(2))
    command = [sys.executable, "-c", WITHOUT_RAY + ALONE, tmp_path / "policy.onnx"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_other_files(tmp_path, monkeypatch):
    pickle = b"cos\nsystem\n(S'touch ran'\ntR."
    (tmp_path / "evil.onnx").write_bytes(pickle)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"(?i)protobuf|parse|load model"):
        OnnxPolicy("evil.onnx")
    assert not (tmp_path / "ran").exists()

    class Other:
        """Stands for a model of somebody else's."""

        def __init__(self, path):
            pass

        def get_modelmeta(self):
            return type("Meta", (), {"custom_metadata_map": {}})

    monkeypatch.setattr(onnxruntime, "InferenceSession", Other)
    message = "`OnnxPolicy` expects a file of `AttentionPolicy.export_onnx`, got 'other.onnx'"
    with pytest.raises(ValueError, match=re.escape(message)):
        OnnxPolicy("other.onnx")
