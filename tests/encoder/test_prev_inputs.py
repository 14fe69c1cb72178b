"""Previous actions and rewards as features: in one go, step by step, and across a fragment cut."""

import numpy as np
import pytest
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


def test_newest_first_and_zeros_before_the_start():
    prev = PrevInputs(spaces.Discrete(2), 2, 1)
    features = prev.sequence([0, 1], [5.0, 6.0], 0, 3)
    np.testing.assert_array_equal(
        features, [[0, 0, 0, 0, 0], [1, 0, 0, 0, 5], [0, 1, 1, 0, 6]]
    )  # a_{t-1}, a_{t-2}, r_{t-1}


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize(("num_actions", "num_rewards"), [(1, 0), (0, 2), (3, 1)])
def test_step_by_step_gives_the_same(space, num_actions, num_rewards):
    actions, rewards = played(space)
    prev = PrevInputs(space, num_actions, num_rewards)
    features = prev.sequence(actions, rewards, 0, NUM_STEPS)
    assert features.shape == (NUM_STEPS, prev.size)
    now = features[0]
    assert not now.any()
    for t in range(1, NUM_STEPS):
        now = prev.advance(now, actions[t - 1], rewards[t - 1])
        np.testing.assert_array_equal(now, features[t])


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_an_episode_of_one_step_has_no_actions_yet(space):
    """Fragments hand over the none that there are as an empty batch."""
    actions, _ = played(space)
    none = tree.map_structure(lambda leaf: leaf[:0], batch(actions))
    assert not PrevInputs(space, 2, 1).sequence(none, np.zeros(0), 0, 1).any()


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_fragment_continues_its_episode(space):
    actions, rewards = played(space)
    prev = PrevInputs(space, 3, 2)
    whole = prev.sequence(actions, rewards, 0, NUM_STEPS)
    cut = 2
    alone = prev.sequence(actions[cut:], rewards[cut:], 0, NUM_STEPS - cut)
    np.testing.assert_array_equal(prev.continued(alone, whole[cut]), whole[cut:])


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
    features = PrevInputs(space, 2, 0).sequence(actions, rewards, 0, NUM_STEPS)
    expected = PrevInputs(plain, 2, 0).sequence(actions, rewards, 0, NUM_STEPS)
    np.testing.assert_array_equal(features, expected)


def test_actions_that_cannot_be_encoded():
    with pytest.raises(ValueError, match=r"`prev_actions` needs Discrete.*got Text"):
        PrevInputs(spaces.Text(5), 1, 0)
    assert PrevInputs(spaces.Text(5), 0, 1).size == 1  # not looked at
