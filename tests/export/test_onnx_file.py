"""ONNX files act as the policy that wrote them, with onnxruntime alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rllib_attention import AttentionConfig
from rllib_attention.export import PolicyStep
from rllib_attention.nn.positions import POSITIONS
from tests.export.sessions import assert_same, play
from tests.export.test_policy_step import BOUNDED, LEARNED, agents_policy, options
from tests.policies import NESTED, SMALL, AttentionPolicy, random_policy, take_sides
from tests.test_docs import code_blocks

PAGE = Path(__file__).parents[2] / "docs" / "acting.md"


def play_file(policy, path):
    """Plays sessions by a policy and by its file, written here."""
    policy.export_onnx(path)
    runtime = onnxruntime.InferenceSession(path)
    names = [output.name for output in runtime.get_outputs()]
    step = PolicyStep(policy._parts)
    example = {name: tensor.numpy() for name, tensor in step.example(3).items()}
    assert [given.name for given in runtime.get_inputs()] == list(example)
    return play(policy, lambda x: dict(zip(names, runtime.run(None, x), strict=True)), example)


def test_a_file_acts_and_says_what_it_must_be_given(tmp_path):
    attention = options(dilation=3, gate="gru", prev_actions=2, prev_rewards=1)
    policy = random_policy(attention, actions=NESTED)
    with torch.no_grad():
        for weight in policy.module.pi.parameters():
            weight *= 5  # so that actions take sides
    path = tmp_path / "policy.onnx"
    assert_same(play_file(policy, path))
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    said = json.loads(metadata["rllib_attention"])
    assert said["context_len"] == attention.context_len == 8
    assert AttentionConfig.from_dict(said["attention"]) == attention
    assert said["context"] == {
        "steps": {"shape": [], "dtype": "int64", "next": "next_steps"},
        "prev": {"shape": [1, 4], "dtype": "float32", "next": "next_prev"},
        "layer_0": {"shape": [2, 2, 2, 4], "dtype": "float32", "next": "next_layer_0"},
        "layer_1": {"shape": [6, 2, 2, 4], "dtype": "float32", "next": "next_layer_1"},
    }
    assert said["action_space"] == str(NESTED)


ALONE = """
import sys
exec(compile(sys.argv[1], "page", "exec"))
assert not {"torch", "ray", "rllib_attention"} & set(sys.modules)
print(num_steps)
"""


def test_the_loop_of_the_page_runs_without_torch_and_ray(tmp_path):
    texts = [block.code for block in code_blocks(PAGE.read_text().replace("<!-- no-test -->", ""))]
    [loop] = [text for text in texts if "import onnxruntime" in text]
    space = np.float32([4.8, 9, 0.42, 9])
    policy = random_policy(SMALL, Box(-space, space), Discrete(2))
    policy.export_onnx(tmp_path / "policy.onnx")
    command = [sys.executable, "-c", ALONE, loop]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > SMALL.context_len


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("gate", ["residual", "gru"])
@pytest.mark.parametrize("window", [1, 4])
def test_every_model(position, gate, window, tmp_path):
    policy = random_policy(options(position=position, gate=gate, window=window), actions=BOUNDED)
    assert_same(play_file(policy, tmp_path / "policy.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_algorithms_and_their_pieces(name, stop, tmp_path):
    algo = stop(LEARNED[name]().build_algo())
    if name != "dqn":
        take_sides(algo, scale=0.2)
    algo.env_runner.sample(num_timesteps=20)
    assert_same(play_file(AttentionPolicy(algo), tmp_path / "policy.onnx"))


def test_images(tmp_path):
    policy = random_policy(SMALL, Box(0, 255, (42, 42, 3), np.uint8), BOUNDED)
    assert_same(play_file(policy, tmp_path / "policy.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("module_id", ["p", "q"])
def test_one_module_of_several(module_id, stop, tmp_path):
    assert_same(play_file(agents_policy(stop, module_id), tmp_path / "policy.onnx"))


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs onnx and onnxscript, not installed here. Fix: `"):
        random_policy(SMALL).export_onnx(tmp_path / "policy.onnx")
