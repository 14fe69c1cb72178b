"""AttentionPolicy, records and `inspect` from checkpoints of the old stack's algorithms."""

import re
import subprocess
import sys

import numpy as np
import pytest
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionPolicy, record_attention, use_attention
from tests.old_stack.support import (
    ACTION_SPACES,
    RaggedEnv,
    RaggedMultiAgentEnv,
    old_stack,
    ppo_config,
    rollout_worker,
    take_sides,
)

SMALL = {"dim": 8, "num_heads": 2, "num_layers": 2, "window": 3}


def by_algorithm(algo, observations):
    """Returns the old Algorithm's own actions, its state handed back."""
    state, actions = algo.get_policy().get_initial_state(), []
    for obs in observations:
        action, state, _ = algo.compute_single_action(
            obs, state, explore=False, unsquash_action=True
        )
        actions.append(action)
    return actions


def test_an_algorithm_its_checkpoint_and_its_policys(stop, tmp_path):
    config = ppo_config(env_config={"action_space": ACTION_SPACES["box"]}, **SMALL)
    config.env_runners(observation_filter="MeanStdFilter").debugging(seed=0)
    algo = stop(config.build_algo())
    take_sides(algo.get_policy(), scale=0.1)  # within the actions' bounds
    algo.env_runner.sample()
    path = str(tmp_path / "algorithm")
    algo.save(path)
    space = algo.get_policy().observation_space
    space.seed(0)
    observations = [space.sample() for _ in range(20)]
    expected = by_algorithm(algo, observations)
    assert np.ptp(expected, axis=0).min() > 0.05
    policies = [
        AttentionPolicy(algo),
        AttentionPolicy.from_checkpoint(path),
        AttentionPolicy.from_checkpoint(tmp_path / "algorithm/policies/default_policy"),
    ]
    for policy in policies:
        found = [policy.act(obs) for obs in observations]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        found = [policy.act({"a": obs, "b": obs})["b"] for obs in observations]  # sessions
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(record_attention(path, max_steps=5)) <= 5  # the checkpoint's own environment
    [record] = record_attention(algo, episodes=1, max_steps=9)
    assert record.num_layers == 2


INSPECT = """
import sys
from rllib_attention.__main__ import main
main(["inspect", sys.argv[1], "--out", sys.argv[2], "--max-steps", "9"])
import ray
assert not ray.is_initialized()
"""


@pytest.mark.slow
@pytest.mark.parametrize("config", [PPOConfig, APPOConfig, IMPALAConfig])
def test_trained_ones_in_a_process_without_ray(config, stop, tmp_path):
    config = old_stack(config()).environment(RaggedEnv).env_runners(rollout_fragment_length=20)
    config.training(train_batch_size=40).resources(num_gpus=0)
    if isinstance(config, PPOConfig):
        config.training(minibatch_size=40, num_epochs=1)
    algo = stop(use_attention(config, **SMALL).build_algo())
    algo.train()
    algo.save(str(tmp_path / "checkpoint"))
    space = algo.get_policy().observation_space
    observations = [space.sample() for _ in range(20)]
    policy = AttentionPolicy.from_checkpoint(tmp_path / "checkpoint")
    assert [policy.act(obs) for obs in observations] == by_algorithm(algo, observations)
    command = [sys.executable, "-c", INSPECT, tmp_path / "checkpoint", tmp_path / "page"]
    subprocess.run(command, check=True)
    assert (tmp_path / "page/index.html").is_file()


def multi_agent():
    config = ppo_config(**SMALL).multi_agent(
        policies={"p", "q"}, policy_mapping_fn=lambda agent, *args, **kw: "pq"[agent == "b"]
    )
    return config.environment(RaggedMultiAgentEnv)


def says(message):
    return pytest.raises(ValueError, match=re.escape(message))


def test_one_policy_of_several(stop, tmp_path):
    algo = stop(multi_agent().build_algo())
    path = str(tmp_path)
    algo.save(path)
    obs = algo.get_policy("q").observation_space.sample()
    for name in "pq":
        policy = AttentionPolicy.from_checkpoint(path, name)
        action, _, extra = algo.get_policy(name).compute_single_action(
            obs, algo.get_policy(name).get_initial_state(), explore=False
        )
        assert policy.act(obs) == action
        assert policy.values() == pytest.approx(extra["vf_preds"], abs=1e-5)
        odds = np.exp(extra["action_dist_inputs"])
        np.testing.assert_allclose(policy.action_probs(), odds / odds.sum(), atol=1e-5)
    with says("`module_id` must name a module with attention, one of ['p', 'q'], but it is miss"):
        AttentionPolicy.from_checkpoint(path)
    with says("expected no `agent_id`, got 'a'. Fix: `AttentionPolicy.from_checkpoint(path, mod"):
        AttentionPolicy.from_checkpoint(path, "p", agent_id="a")
    with says("The policy acts in environments of one agent, got "):
        record_attention(path, module_id="p")


def test_a_policy_without_attention(tmp_path):
    config = ppo_config()
    config.training(model={"custom_model": None, "custom_model_config": {}})
    rollout_worker(config).policy_map["default_policy"].export_checkpoint(str(tmp_path / "mlp"))
    with says("expects a module with an attention encoder, but none of ['mlp'] has one. Fix: "):
        AttentionPolicy.from_checkpoint(tmp_path / "mlp")


def test_checkpoints_without_pickles(tmp_path):
    (tmp_path / "policies").mkdir()
    with says("expects 'policy_state.pkl' in a checkpoint of RLlib's old API stack at "):
        AttentionPolicy.from_checkpoint(tmp_path)
    (tmp_path / "rllib_checkpoint.json").write_text('{"format": "msgpack"}')
    with says("(its format: msgpack). Fix: a checkpoint as `algo.save(path)` writes it"):
        AttentionPolicy.from_checkpoint(tmp_path)
