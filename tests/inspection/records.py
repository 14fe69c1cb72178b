"""Records that are made by hand."""

import numpy as np

from rllib_attention.inspection import AttentionRecord


def make_record(weights, strides=None, rewards=None, **fields):
    """A record around weights (L, H, T, W)."""
    weights = np.asarray(weights, np.float32)
    length = weights.shape[2]
    strides = np.ones(len(weights), int) if strides is None else np.array(strides)
    rewards = np.zeros(length, np.float32) if rewards is None else rewards
    observations, actions = np.zeros((length, 2), np.float32), np.arange(length)
    return AttentionRecord(weights, strides, observations, actions, rewards, **fields)


def random_record(length, window=3, strides=(1, 1), num_heads=2, num_past=0):
    """Random weights, 0 where the episode had not begun."""
    rng = np.random.default_rng(0)
    weights = rng.random((len(strides), num_heads, length, window))
    steps = np.arange(length)[:, None] + num_past
    for layer, stride in enumerate(strides):
        weights[layer] *= steps - np.arange(window) * stride >= 0
    weights /= weights.sum(-1, keepdims=True)
    return make_record(weights, strides, rng.normal(size=length), start=num_past, num_past=num_past)
