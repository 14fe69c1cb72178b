"""AttentionPolicy acts as the Algorithm's own evaluation does, session by session."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Tuple
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.tune import Checkpoint

from rllib_attention import AttentionPolicy, use_attention
from rllib_attention.encoder.rollout_cache import RolloutCache
from tests.policies import (
    CASES,
    LENGTH,
    SMALL,
    VECTOR,
    WITH_PAST,
    BoxNoise,
    Noise,
    assert_same,
    config_of,
    differ,
    played_by,
    random_policy,
    random_steps,
    replayed,
    take_sides,
    two_agents,
    with_pieces,
)
from tests.test_docs import code_blocks


@pytest.mark.parametrize("name", CASES)
def test_it_acts_as_the_algorithm_does(name, stop):
    algo = stop(CASES[name]().build_algo())
    if name != "dqn":  # whose fresh values differ from state to state already
        take_sides(algo)
    algo.env_runner.sample(num_timesteps=20)  # filters have seen something
    policy = AttentionPolicy(algo)
    steps = played_by(algo)
    assert len(steps) == LENGTH
    actions = [action for _, action, _ in steps]
    assert differ(actions[1:], actions[:-1])
    assert_same(replayed(policy, steps), actions)
    # Again: nothing in it has changed.
    assert_same(replayed(policy, steps), actions)
    # Actions that were clipped for the environment are others when they come from there.
    told = replayed(policy, steps, told=20)
    assert_same(replayed(policy, steps, start=20), told[20:])
    if isinstance(policy.action_space, Discrete | MultiDiscrete | Tuple):
        assert_same(told, actions)


# Sessions


def test_sessions_with_clocks_of_their_own_equal_separate_runs():
    policy = random_policy()
    played = {name: random_steps(25, seed, policy) for seed, name in enumerate("abcde")}
    alone = {name: replayed(policy, steps) for name, steps in played.items()}
    assert differ(alone["a"], alone["b"])
    policy.close()
    clocks, found = dict.fromkeys(played, 0), {name: [] for name in played}
    rng = np.random.default_rng(0)
    while running := [name for name, clock in clocks.items() if clock < 25]:
        chosen = [name for name in running if rng.random() < 0.4]
        obs = {name: played[name][clocks[name]][0] for name in chosen}
        rewards = {n: played[n][clocks[n] - 1][2] for n in chosen if clocks[n]}
        for name, action in policy.act(obs, prev_reward=rewards).items():
            found[name].append(action)
            clocks[name] += 1
    for name in played:
        assert_same(found[name], alone[name])
    assert set(policy.sessions) == set(played)


def test_the_past_matters_and_a_reset_forgets_it():
    policy = random_policy()
    steps = random_steps(10, 0, policy)
    fresh = []
    for obs, _, _ in steps:
        policy.reset()
        fresh.append(policy.act(obs))
    assert differ(fresh[1:], replayed(policy, steps)[1:])
    assert_same(fresh[:1], replayed(policy, steps)[:1])


def test_memory_is_bounded_over_time_and_over_sessions():
    policy = random_policy(SMALL)
    weights = [weight.clone() for weight in policy.module.parameters()]
    for number in range(300):
        policy.act({number: VECTOR.sample(), "long": VECTOR.sample()})
        policy.close(number)
    assert policy.sessions == ("long",)
    episode = policy._sessions["long"].episode
    assert episode.t == 299
    assert len(episode.observations.data) <= 64 + policy._parts.lookback + 1
    assert len(episode.actions.data) == len(episode.rewards.data) <= 64 + policy._parts.lookback
    [memory] = [found.memory for found in policy._pass._memory._connected.values()]
    assert memory.slots.num_slots <= 4
    for before, after in zip(weights, policy.module.parameters(), strict=True):
        assert torch.equal(before, after)


def test_it_acts_from_cached_keys_and_values(monkeypatch):
    policy = random_policy()
    steps = random_steps(10, 0, policy)
    rebuilt = []
    rebuild = RolloutCache._rebuild
    monkeypatch.setattr(RolloutCache, "_rebuild", lambda *args: rebuilt.append(1) or rebuild(*args))
    replayed(policy, steps)
    assert not rebuilt
    policy.act(dict.fromkeys("ab", steps[0][0]))
    for _, name in zip(range(10), "abbbaabaaa", strict=True):
        policy.act({name: steps[1][0]}, prev_reward={name: 0.0})
    assert not rebuilt
    replayed(policy, steps, start=5)
    assert rebuilt


def test_what_was_done_instead_counts():
    policy = random_policy()
    steps = random_steps(12, 0, policy)
    own, told = replayed(policy, steps), replayed(policy, steps, told=5)
    assert_same(own[:1], told[:1])
    assert differ(own[1:7], told[1:7])
    taught = [(obs, action, reward) for (obs, _, reward), action in zip(steps, own, strict=True)]
    assert np.abs(own).max() < 9.0
    # Inside the bounds, the policy's own actions come back from the environment unchanged.
    assert_same(replayed(policy, taught, told=12), own)


# Values, probabilities, exploration


def test_values_and_probabilities_are_those_of_the_module():
    policy = random_policy(SMALL, actions=Discrete(4))
    obs = {name: VECTOR.sample() for name in "ab"}
    for _ in range(3):
        actions = policy.act(obs)
    probs, values = policy.action_probs(), policy.values()
    assert set(probs) == set(values) == {"a", "b"}
    for name, action in actions.items():
        assert probs[name].shape == (4,)
        assert probs[name].sum() == pytest.approx(1.0, abs=1e-6)
        assert probs[name].argmax() == action
    assert policy.values() == pytest.approx(values)
    policy.reset(history=[(obs["a"], 0, 0.0)] * 2)
    policy.act(obs["a"])
    assert policy.values() == pytest.approx(values["a"], abs=1e-5)
    np.testing.assert_allclose(policy.action_probs(), probs["a"], atol=1e-6)


def test_probabilities_of_several_choices():
    policy = random_policy(SMALL, actions=MultiDiscrete([2, 3]))
    action = policy.act(VECTOR.sample())
    assert [part.argmax() for part in policy.action_probs()] == list(action)


def test_exploring_samples_repeatably_and_leaves_torch_alone():
    policy = random_policy(SMALL, actions=Discrete(6))
    obs = {number: np.zeros(3, np.float32) for number in range(500)}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    policy.seed(1)
    first = policy.act(obs, explore=True)
    assert torch.equal(torch.rand(1), expected)
    shares = np.bincount(list(first.values()), minlength=6) / 500
    np.testing.assert_allclose(shares, policy.action_probs()[0], atol=0.1)
    for number in obs:
        policy.reset(number)
    again = policy.act(obs, explore=True)
    assert again != first
    for number in obs:
        policy.reset(number)
    policy.seed(1)
    assert policy.act(obs, explore=True) == first


# Checkpoints


RESTORE = """
import sys, numpy as np, ray
from rllib_attention import AttentionPolicy
policy = AttentionPolicy.from_checkpoint(sys.argv[1])
data = np.load(sys.argv[2])
actions = [policy.act(obs) for obs in data["obs"]]
np.testing.assert_allclose(actions, data["actions"], atol=2e-6)
assert not ray.is_initialized()
"""


def test_a_checkpoint_acts_in_a_process_without_ray_running(stop, tmp_path):
    actions = Box(-1.0, 1.0, (1,), np.float32)
    algo = stop(
        config_of(with_pieces(PPOConfig(), MeanStdFilter), VECTOR, actions, SMALL).build_algo()
    )
    algo.env_runner.sample(num_timesteps=20)
    algo.save_to_path(tmp_path / "checkpoint")
    steps = played_by(algo)
    np.savez(tmp_path / "steps.npz", obs=[s[0] for s in steps], actions=[s[1] for s in steps])
    command = [sys.executable, "-c", RESTORE, tmp_path / "checkpoint", tmp_path / "steps.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_one_module_of_several(stop, tmp_path):
    algo = stop(use_attention(two_agents(), WITH_PAST).build_algo())
    take_sides(algo)
    algo.env_runner.sample(num_timesteps=20)
    path = algo.save_to_path(tmp_path)
    with says("`module_id` must name a module with attention, one of ['p', 'q'], but it is miss"):
        AttentionPolicy.from_checkpoint(path)
    with says("`agent_id` must name an agent of the environment, one of ['a', 'b']: got 'c'."):
        AttentionPolicy.from_checkpoint(path, "q", agent_id="c")
    played_by(algo)
    # Before anything is loaded: a checkpoint that holds these classes by value sets them back.
    played = {"p": [*Noise.played], "q": [*BoxNoise.played]}
    for module_id, entries in played.items():
        policy = AttentionPolicy.from_checkpoint(path, module_id)
        steps = [step for step in entries if step[2] is not None]
        assert len(steps) == LENGTH
        assert_same(replayed(policy, steps), [action for _, action, _ in steps])
        assert_same(replayed(policy, steps, start=9), replayed(policy, steps, told=9)[9:])
        obs = dict.fromkeys("xy", steps[0][0])
        assert set(policy.act(obs)) == set(policy.values()) == {"x", "y"}


def test_a_module_alone_acts_as_in_its_policy(tmp_path):
    policy = random_policy(SMALL)
    policy.module.save_to_path(tmp_path)
    steps = random_steps(10, 0, policy)
    restored = AttentionPolicy.from_checkpoint(tmp_path)
    assert_same(replayed(restored, steps), replayed(policy, steps))
    tuned = AttentionPolicy.from_checkpoint(Checkpoint(str(tmp_path)))
    assert_same(replayed(tuned, steps), replayed(policy, steps))


def test_the_page_on_acting_runs_as_printed():
    page = Path(__file__).parents[1] / "docs" / "acting.md"
    # Later blocks go on where earlier ones end, so that on their own they are not run.
    text = page.read_text().replace("<!-- no-test -->\n", "")
    blocks = [block.code for block in code_blocks(text) if "onnx" not in block.code]
    assert len(blocks) == 5  # `tests/export/test_onnx_file.py` runs the others
    exec(compile("\n".join(blocks), str(page), "exec"), {})


# Errors


def says(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}")


def test_wrong_checkpoints(tmp_path):
    for path, found in ((tmp_path, "none"), (tmp_path / "missing", "no such folder")):
        with says(
            "AttentionPolicy expects a checkpoint of an Algorithm, an RLModule or, of RLlib's old "
            f"API stack, a Policy at {str(path)!r}, found {found}. Fix: "
        ):
            AttentionPolicy.from_checkpoint(path)
    random_policy(SMALL).module.save_to_path(tmp_path / "module")
    with says(
        "`module_id` must name a module with attention, one of ['default_policy'], but it is 'x'."
    ):
        AttentionPolicy.from_checkpoint(tmp_path / "module", "x")
    with pytest.raises(TypeError, match="expects an Algorithm, got str"):
        AttentionPolicy("path")
    with pytest.raises(TypeError, match="expects a path or a Tune checkpoint, got int"):
        AttentionPolicy.from_checkpoint(1)


def test_a_module_without_attention(stop):
    config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
    with says(
        "`AttentionPolicy.from_checkpoint(path)` expects a module with an attention encoder, but "
    ):
        AttentionPolicy(stop(config.build_algo()))


def test_misuse_is_found_before_any_session_moves():
    policy = random_policy()
    obs = VECTOR.sample()
    with says(
        f"`act` expects an observation of {VECTOR}, got str of shapes [()] in session None. Fix: "
    ):
        policy.act("obs")
    with pytest.raises(ValueError, match=r"of shapes \[\(1, 3\)\] in session 'b'"):
        policy.act({"a": obs, "b": obs[None]})
    assert policy.sessions == ()
    with says("Session None has no step before, so no `prev_action` or `prev_reward`."):
        policy.act(obs, prev_reward=1.0)
    with says("There is no decision to look at."):
        policy.values()
    policy.act({"a": obs})
    with says("The module reads previous rewards, but that of session 'a' is missing."):
        policy.act({"a": obs})
    with says("`prev_reward` expects {session: ...} with sessions of this call, ['a'], got 0.0."):
        policy.act({"a": obs}, prev_reward=0.0)
    with says("`prev_action` expects {session: ...} with sessions of this call, ['a'], got ['b']."):
        policy.act({"a": obs}, prev_action={"b": 0})
    assert policy._sessions["a"].episode.t == 0
    with says("`action_probs` expects Discrete or MultiDiscrete actions"):
        policy.action_probs()
    policy.close("a")
    with says("`close` expects an open session, got 'a'; 0 are open."):
        policy.close("a")
