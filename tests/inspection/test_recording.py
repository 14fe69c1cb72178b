"""Records of algorithms, policies, checkpoints and episodes, against a dense reference."""

import random
import re

import numpy as np
import pytest
import torch
import tree
from gymnasium.spaces import Box, Dict, Discrete
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.tune import Checkpoint

from rllib_attention import AttentionConfig, AttentionPolicy
from rllib_attention.inspection import record_attention
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from tests.harness import IMAGE, VECTOR, RandomEnv, RandomMultiAgentEnv, build, prepare, sample
from tests.nn import rows

SMALL = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=3, dilation=3, max_seq_len=10)
NESTED = Dict({"a": Discrete(3), "b": Box(-2.0, 3.0, (2,), np.float32)})


class SeededEnv(RandomEnv):
    """Rewards and episodes that the reset's seed determines."""

    def __init__(self, config=None):
        super().__init__({"lengths": (30, 31)} | dict(config or {}))


def assert_same(record, other, tolerance=1e-6):
    for name, value in vars(record).items():
        np.testing.assert_allclose(value, getattr(other, name), atol=tolerance, err_msg=name)


def assert_dense(record, module, obs, prev=None):
    """The weights are those of dense attention, worked out entry by entry."""
    encoder, dense = inspect_module(module).encoders[0], []
    with torch.no_grad():
        tokens = encoder.embedding(torch.as_tensor(obs), prev)
        rows.episode(encoder.transformer, tokens, int(record.strides[1]), dense)
    for layer, stride in enumerate(record.strides):
        for k in range(record.weights.shape[-1]):
            expected = dense[layer].diagonal(-k * stride, dim1=1, dim2=2)
            actual = record.weights[layer, :, k * stride :, k]
            np.testing.assert_allclose(actual, expected, atol=1e-5)
            assert not record.weights[layer, :, : k * stride, k].any()


@pytest.mark.parametrize("kind", [PPOConfig, DQNConfig])
def test_record_of_an_algorithm_and_of_an_episode(stop, kind):
    algo = stop(build(prepare(kind(), SeededEnv), SMALL))
    record = record_attention(algo)
    assert record.weights.shape == (2, 2, 30, 3)
    assert record.strides.tolist() == [1, 3]
    assert (record.start, record.num_past) == (0, 0)
    assert record.observations.shape == (30, 3)
    assert_dense(record, algo.get_module(), record.observations)

    episode = max(sample(algo, num_episodes=1), key=len)
    for source in (algo, algo.get_module(), AttentionPolicy(algo)):
        record = record_attention(source, episode)
        assert_dense(record, algo.get_module(), episode.get_observations(slice(0, -1)))
        np.testing.assert_array_equal(record.actions, episode.get_actions())
        np.testing.assert_allclose(record.rewards, episode.get_rewards(), rtol=1e-6)


def test_previous_inputs_and_nested_actions(stop):
    config = prepare(PPOConfig(), SeededEnv, action_space=NESTED)
    algo = stop(build(config, SMALL, prev_actions=2, prev_rewards=1))
    record = record_attention(algo)
    assert record.actions.shape == (30, 3)
    prev = inspect_module(algo.get_module()).prev_inputs
    actions = {"a": record.actions[:, 0].astype(int), "b": record.actions[:, 1:]}
    inputs = prev.rows(tree.map_structure(lambda x: x[:-1], actions), record.rewards[:-1], 29)
    stacked = torch.from_numpy(prev.stack(prev.padded(inputs, prev.depth - 1 + 30)))
    assert_dense(record, algo.get_module(), record.observations, stacked)


def test_a_fragment_attends_to_its_past(stop):
    algo = stop(build(prepare(PPOConfig(), SeededEnv), SMALL, prev_actions=1))
    module = algo.get_module()
    episode = max(sample(algo, num_episodes=1), key=len)
    whole = record_attention(module, episode)
    fragment = episode.slice(slice(11, 25), len_lookback_buffer=9)
    record = record_attention(module, fragment)
    assert (record.start, record.num_past, len(record)) == (11, 8, 14)
    np.testing.assert_allclose(record.weights, whole.weights[:, :, 11:25], atol=1e-6)
    np.testing.assert_array_equal(record.observations, whole.observations[11:25])
    np.testing.assert_array_equal(record.steps(1), whole.steps(1)[11:25])


def test_each_source_gives_the_same_and_acts_as_the_policy(stop):
    config = prepare(PPOConfig(), SeededEnv)
    config.env_runners(env_to_module_connector=lambda *args: MeanStdFilter())
    algo = stop(build(config, SMALL, prev_rewards=1))
    sample(algo, num_timesteps=50)  # the filter has seen something
    path, policy = algo.save_to_path(), AttentionPolicy(algo)
    first, second = record_attention(algo, episodes=2, seed=5)
    assert not np.array_equal(first.observations, second.observations)
    assert_same(second, record_attention(algo, seed=6))
    for source in (path, Checkpoint(str(path))):
        assert_same(first, record_attention(source, seed=5))
    assert_same(first, record_attention(policy, env=SeededEnv, seed=5))
    assert_same(
        first, record_attention(path, env="tests.inspection.test_recording:SeededEnv", seed=5)
    )

    env, reward = SeededEnv(), None
    obs, _ = env.reset(seed=5)
    for action, expected in zip(first.actions, first.rewards, strict=True):
        assert policy.act(obs, prev_reward=reward) == action
        obs, reward, *_ = env.step(action)
        assert reward == pytest.approx(expected)
    assert np.abs(first.observations).max() > 1.05  # filtered: raw ones are at most 1


def global_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def test_recording_changes_nothing(stop):
    config = prepare(PPOConfig(), SeededEnv)
    config.env_runners(env_to_module_connector=lambda *args: MeanStdFilter())
    algo = stop(build(config, SMALL))
    policy, untouched = AttentionPolicy(algo), AttentionPolicy(algo)
    obs = np.ones(3, np.float32)
    for other in (policy, untouched):
        other.act(obs)
    before = global_states(), algo.env_runner.get_state(), algo.metrics.peek()
    values = policy.values()
    record_attention(algo)
    record_attention(policy, env=SeededEnv())
    after = global_states(), algo.env_runner.get_state(), algo.metrics.peek()
    tree.map_structure(np.testing.assert_array_equal, tree.flatten(before), tree.flatten(after))
    assert policy.values() == values
    assert policy.sessions == untouched.sessions
    for _ in range(5):
        assert policy.act(obs) == untouched.act(obs)
        # Its past is computed at once, not step by step.
        assert policy.values() == pytest.approx(untouched.values(), abs=1e-6)


def test_images_and_long_episodes(stop):
    """More observations than are embedded at once."""
    env = {"observation_space": IMAGE, "lengths": (300, 301)}
    algo = stop(build(prepare(PPOConfig(), **env), SMALL))
    record = record_attention(algo, max_steps=290)
    assert record.observations.shape == (290, 42, 42, 3)
    assert record.observations.dtype == np.uint8
    assert_dense(record, algo.get_module(), record.observations)


def by_number(agent_id, episode, **kwargs):
    return "p0" if agent_id == "agent_0" else "p1"


@pytest.mark.parametrize("mode", ["all", "random"])
def test_several_agents(stop, mode):
    config = prepare(PPOConfig(), RandomMultiAgentEnv, mode=mode)
    config.multi_agent(policies={"p0", "p1"}, policy_mapping_fn=by_number)
    algo = stop(build(config, SMALL))
    modules = algo.env_runner.module
    for module_id in ("p0", "p1"):
        record = record_attention(algo, module_id=module_id)
        assert_dense(record, modules[module_id], record.observations)
    [episode, *_] = sample(algo, num_episodes=1)
    ours = {k: e for k, e in episode.agent_episodes.items() if k != "agent_0"}
    record = record_attention(algo, episode, module_id="p1")
    assert len(record) == max(map(len, ours.values()))
    for agent_id, agent in ours.items():
        record = record_attention(algo, episode, module_id="p1", agent_id=agent_id)
        np.testing.assert_array_equal(record.rewards, np.float32(agent.get_rewards()))
        assert_same(record, record_attention(modules, agent, module_id="p1"))
    with says("Agent 'agent_0' acted in the episode of"):
        record_attention(algo, episode, module_id="p1", agent_id="agent_0")


def test_one_module_of_several(stop):
    config = prepare(PPOConfig(), RandomMultiAgentEnv)
    config.multi_agent(policies={"p0", "p1"}, policy_mapping_fn=by_number)
    algo = stop(build(config, module_ids=["p0"]))
    # The algorithm plays an episode itself; of its modules only one has attention.
    for chosen in (None, "p0"):
        assert record_attention(algo, module_id=chosen).weights.sum(-1) == pytest.approx(1.0)
    [episode, *_] = sample(algo, num_episodes=1)
    for wrong in ("p1", "p7"):
        message = f"one of \\['p0'\\], but it is '{wrong}'. Fix: `record_attention"
        with pytest.raises(ValueError, match=message):
            record_attention(algo.env_runner.module, episode, module_id=wrong)


# Errors


def says(message, kind=ValueError):
    return pytest.raises(kind, match=re.escape(message))


def test_misuse():
    policy = AttentionPolicy.from_spaces(SMALL, VECTOR, Discrete(4))
    with says("plays episodes with an Algorithm, an AttentionPolicy or a checkpoint", TypeError):
        record_attention(policy.module)
    with says("or the path of a checkpoint, got int. Fix: ", TypeError):
        record_attention(1)
    with says("An environment is needed, since the policy comes without one."):
        record_attention(policy)
    with says("`episodes` must be at least 1, got 0."):
        record_attention(policy, env=SeededEnv, episodes=0)
    with says("acts in environments of one agent, got"):
        record_attention(policy, env=RandomMultiAgentEnv)
    with says("found no such folder"):
        record_attention("/no/checkpoint")
    with says("expects `episodes` to play, or an episode that was played"):
        record_attention(policy.module, object(), episodes=2)


def test_module_without_attention(stop):
    algo = stop(prepare(PPOConfig()).build_algo())
    [episode, *_] = sample(algo, num_episodes=1)
    for given in ((algo,), (algo, episode)):
        with says("expects a module with an attention encoder, but none of"):
            record_attention(*given)
