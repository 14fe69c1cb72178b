"""Fragments of one played episode, and modules that the connectors can read."""

import types

import gymnasium as gym
import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_attention import AttentionConfig
from rllib_attention.encoder.prev_inputs import PrevInputs
from rllib_attention.new_stack.connectors.attention_module import AttentionModule
from rllib_attention.new_stack.connectors.chunks import chunk_contexts

ACTIONS = gym.spaces.Discrete(5)
ATTENTION = AttentionConfig(num_layers=2, window=4, prev_actions=3, prev_rewards=1)  # C = 6
LENGTH = 30


def module(attention=ATTENTION, max_seq_len=4):
    """Returns what the connectors know of a module."""
    prev = PrevInputs(ACTIONS, attention.prev_actions, attention.prev_rewards)
    known = types.SimpleNamespace(
        attention=attention,
        prev_inputs=prev,
        max_seq_len=max_seq_len,
        observation=lambda obs: obs,
        name="RLModule 'p0'",
    )
    known.check_finite = types.MethodType(AttentionModule.check_finite, known)
    return known


def played(length=LENGTH):
    """Returns the episode's observations, actions and rewards."""
    rng = np.random.default_rng(0)
    obs = [rng.normal(size=2).astype(np.float32) for _ in range(length + 1)]
    return obs, [int(a) for a in rng.integers(5, size=length)], list(rng.normal(size=length))


def fragment(start, stop, lookback):
    """Returns steps `start` to `stop` of the played episode, with some of the steps before."""
    obs, actions, rewards = played()
    first = start - lookback
    return SingleAgentEpisode(
        observations=obs[first : stop + 1],
        actions=actions[first:stop],
        rewards=rewards[first:stop],
        observation_space=gym.spaces.Box(-9, 9, (2,), np.float32),
        action_space=ACTIONS,
        len_lookback_buffer=lookback,
        t_started=start,
    )


def check_chunks(attention, max_seq_len, start, num_steps):
    """Asserts that each chunk of a fragment has its context, against the episode's own lists."""
    known = module(attention, max_seq_len)
    episode = fragment(start, start + num_steps, min(start, attention.history_len))
    chunks = chunk_contexts(episode, known)
    obs, actions, rewards = played()
    prev, span = known.prev_inputs, attention.context_len
    rows = np.concatenate((prev.none[None], prev.rows(actions, rewards, len(actions))))
    reach = max(0, prev.depth - 1)
    assert len(chunks.context) == -(-num_steps // max_seq_len)
    for i, context in enumerate(chunks.context):
        first = start + i * max_seq_len  # the chunk's first step, in the episode
        past, size = min(first, span), min(max_seq_len, start + num_steps - first)
        assert (chunks.context_length[i], chunks.chunk_length[i]) == (past, size)
        np.testing.assert_array_equal(
            context[span - past :], np.reshape(obs[first - past : first], (-1, 2))
        )
        if prev.size:
            # The real rows, and those of earlier steps that the first one reaches back to.
            seen = chunks.prev[i][reach + span - past : reach + span + size]
            np.testing.assert_array_equal(seen, rows[first - past : first + size])
    assert (chunks.prev is None) == (not prev.size)
