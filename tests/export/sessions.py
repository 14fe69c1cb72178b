"""Plays the same sessions by a policy and by a step that is given its context."""

import numpy as np
import tree

from rllib_attention.export.named import NamedSpace

TOLERANCE = 5e-5  # of float32 actions within bounds of up to 9, of large weights


def play(policy, step, example, *, num_steps=25, seed=0):
    """Acts in three sessions; in some steps one or two of them begin anew.

    Args:
        policy: An `AttentionPolicy`.
        step: What it was exported to: takes arrays by name, and returns them.
        example: Inputs of three new sessions, by name.
        num_steps: Steps in all.
        seed: Of observations and rewards.

    Returns:
        The actions of both for each step and session, policy's and step's.
    """
    rng = np.random.default_rng(seed)
    policy.observation_space.seed(seed)
    obs_space = NamedSpace("obs", policy.observation_space)
    action_space = NamedSpace("actions_for_env", policy.action_space)
    inputs = {name: np.array(value) for name, value in example.items()}
    rewards, fresh, pairs = np.zeros(3, np.float32), [0, 1, 2], []
    for number in range(num_steps):
        if number:
            fresh = {6: [0], 7: [2], 15: [0, 1]}.get(number, [])
        for row in fresh:
            policy.reset(row)
            for name in inputs:
                if not name.startswith("prev_"):  # not read in a session's first step
                    inputs[name][row] = 0
        obs = [policy.observation_space.sample() for _ in range(3)]
        parts = [obs_space.named(one) for one in obs]
        inputs |= {
            name: np.stack([part[name] for part in parts]).astype(inputs[name].dtype)
            for name in obs_space.names
        }
        if "prev_rewards" in inputs:
            inputs["prev_rewards"] = rewards
        told = {row: float(rewards[row]) for row in range(3) if row not in fresh}
        expected = policy.act(dict(enumerate(obs)), prev_reward=told)
        outputs = step(inputs)
        rewards = rng.normal(size=3).astype(np.float32)
        for name, value in outputs.items():
            inputs |= {name.removeprefix("next_"): np.array(value)} if "next_" in name else {}
            if name.partition(".")[0] == "actions" and f"prev_{name}" in inputs:
                inputs[f"prev_{name}"] = np.array(value)
        found = [{name: outputs[name][row] for name in action_space.names} for row in range(3)]
        pairs += [(expected[row], action_space.nested(found[row])) for row in range(3)]
    return pairs


def assert_same(pairs):
    """Checks that policy and step acted alike, and did not always do the same."""
    for expected, found in pairs:
        tree.map_structure(
            lambda a, b: np.testing.assert_allclose(b, a, atol=TOLERANCE, rtol=1e-5),
            expected,
            found,
        )
    first = tree.flatten(pairs[0][0])
    assert any(
        not np.array_equal(a, b)
        for other, _ in pairs[1:]
        for a, b in zip(first, tree.flatten(other), strict=True)
    )
