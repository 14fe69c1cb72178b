"""Previous actions and rewards: features against gymnasium's flattening, from every start."""

import numpy as np
import pytest
import torch
import tree
from gymnasium import spaces
from ray.rllib.utils.spaces.space_utils import batch

from rllib_attention.encoder.prev_inputs import PrevInputs

NESTED = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1.0, 1.0, (2,))})
SPACES = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([2, 4]),
    spaces.MultiBinary(3),
    spaces.Box(-1.0, 1.0, (2,)),
    NESTED,
    spaces.Tuple((NESTED, spaces.Discrete(2))),
]
NUM_STEPS = 6


def played(space):
    space.seed(0)
    actions = [space.sample() for _ in range(NUM_STEPS - 1)]
    rewards = np.random.default_rng(0).normal(size=NUM_STEPS - 1).astype(np.float32)
    return actions, rewards


def features(prev, *args):
    return prev.encode(torch.from_numpy(prev.sequence(*args)), *prev.tables()).numpy()


def reference(space, actions, rewards, num_actions, num_rewards):
    """Features step by step, by gymnasium's own flattening; zeros before the episode's start."""
    flat = [spaces.flatten(space, action).astype(np.float32) for action in actions]
    rows = []
    for t in range(len(actions) + 1):
        taken = [
            flat[t - i] if t >= i else np.zeros_like(flat[0]) for i in range(1, num_actions + 1)
        ]
        paid = [rewards[t - i] if t >= i else 0.0 for i in range(1, num_rewards + 1)]
        rows.append(np.concatenate((*taken, paid)))
    return np.array(rows, np.float32)


def test_newest_first_and_zeros_before_the_start():
    prev = PrevInputs(spaces.Discrete(2), 2, 1)
    np.testing.assert_array_equal(
        features(prev, [0, 1], [5.0, 6.0], 0, 3),
        [[0, 0, 0, 0, 0], [1, 0, 0, 0, 5], [0, 1, 1, 0, 6]],
    )  # a_{t-1}, a_{t-2}, r_{t-1}


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize(("num_actions", "num_rewards"), [(1, 0), (0, 2), (3, 1)])
def test_features_are_those_of_gymnasium(space, num_actions, num_rewards):
    actions, rewards = played(space)
    prev = PrevInputs(space, num_actions, num_rewards)
    out = features(prev, actions, rewards, 0, NUM_STEPS)
    assert out.shape == (NUM_STEPS, prev.encoded_size)
    expected = reference(space, actions, rewards, num_actions, num_rewards)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_an_episode_of_one_step_has_no_actions_yet(space):
    """Fragments hand over the none that there are as an empty batch."""
    actions, _ = played(space)
    none = tree.map_structure(lambda leaf: leaf[:0], batch(actions))
    assert not features(PrevInputs(space, 2, 1), none, np.zeros(0), 0, 1).any()


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_what_came_before_is_seen(space):
    """A stretch that starts in mid-episode carries what the whole episode carries there."""
    actions, rewards = played(space)
    prev = PrevInputs(space, 3, 2)
    whole = prev.sequence(actions, rewards, 0, NUM_STEPS)
    for past in range(4):
        part = prev.sequence(actions, rewards, past, NUM_STEPS - past)
        np.testing.assert_array_equal(part, whole[past:])


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_tensors_give_the_same_rows(space):
    actions, rewards = played(space)
    prev = PrevInputs(space, 2, 1)
    tensors = tree.map_structure(torch.as_tensor, batch(actions))
    rows = prev.tensor_rows(tensors, torch.as_tensor(rewards), (NUM_STEPS - 1,))
    np.testing.assert_array_equal(rows.numpy(), prev.rows(actions, rewards, NUM_STEPS - 1))


@pytest.mark.parametrize(
    ("space", "plain"),
    [
        (spaces.Discrete(3, start=5), spaces.Discrete(3)),
        (spaces.MultiDiscrete([2, 3], start=[4, -1]), spaces.MultiDiscrete([2, 3])),
    ],
    ids=str,
)
def test_actions_count_from_0_whatever_the_start_of_their_space(space, plain):
    """As RLlib's distributions return them, and as episodes record them."""
    actions, rewards = played(plain)
    out = features(PrevInputs(space, 2, 0), actions, rewards, 0, NUM_STEPS)
    expected = features(PrevInputs(plain, 2, 0), actions, rewards, 0, NUM_STEPS)
    np.testing.assert_array_equal(out, expected)


def test_actions_that_cannot_be_encoded():
    with pytest.raises(ValueError, match=r"`prev_actions` needs Discrete.*got Text"):
        PrevInputs(spaces.Text(5), 1, 0)
    assert PrevInputs(spaces.Text(5), 0, 1).size == 1  # not looked at
