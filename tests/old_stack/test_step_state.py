"""The old stack's state: what packing keeps, and the new stack's features of previous steps."""

import numpy as np
import pytest
import torch
from ray.rllib.utils.spaces.space_utils import flatten_to_single_ndarray

from rllib_attention import AttentionConfig
from rllib_attention.encoder.prev_inputs import PrevInputs
from rllib_attention.old_stack.step_state import StepState
from tests.old_stack.support import ACTION_SPACES, OBSERVATION_SPACES, VECTOR

IMAGE = OBSERVATION_SPACES["image"]


def steps(space=VECTOR, action_space=ACTION_SPACES["box"], **options) -> StepState:
    return StepState(space, action_space, AttentionConfig(num_layers=1, **options))


# Shapes


@pytest.mark.parametrize(
    ("options", "num_rows"),
    [
        ({"window": 1}, 1),  # one row at least: it tells first steps
        ({"window": 4}, 3),
        ({"window": 4, "prev_rewards": 1}, 3),  # a row has its own previous reward in it
        ({"window": 4, "prev_rewards": 3}, 5),
        ({"window": 4, "prev_actions": 2, "prev_rewards": 3}, 5),
        ({"window": 1, "prev_actions": 3}, 2),
    ],
    ids=str,
)
def test_a_state_has_the_rows_that_the_oldest_features_reach_back_to(options, num_rows):
    assert steps(**options).num_rows == num_rows


@pytest.mark.parametrize(("space", "size"), [(VECTOR, 3 + 3 + 1), (IMAGE, 72 + 4 * (3 + 1))])
def test_the_initial_state_is_empty_and_of_its_space(space, size):
    built = steps(space, window=4, prev_actions=1, prev_rewards=1)
    state = built.initial()
    assert state.shape == built.shape == (3, size)
    assert not state.any()
    assert built.space().contains(state.numpy())


# Packing


@pytest.mark.parametrize("space", [VECTOR, IMAGE], ids=["float", "bytes"])
def test_unpack_undoes_pack(space):
    built, rng = steps(space, window=4, prev_actions=1, prev_rewards=1), np.random.default_rng(0)
    space.seed(0)
    obs = torch.as_tensor(np.stack([[space.sample() for _ in range(5)] for _ in range(2)]))
    encoded = torch.as_tensor(rng.normal(size=(2, 5, built.prev.row_size)), dtype=torch.float32)
    valid = torch.arange(5) < torch.tensor([[3], [5]])
    packed = built.pack(obs, encoded, valid)
    assert packed.shape == (2, 5, built.shape[1])
    assert packed.dtype == built.initial().dtype
    nothing = torch.from_numpy(built.prev.none).expand_as(encoded)
    encoded = torch.where(valid[..., None], encoded, nothing)  # before steps that are none
    for actual, expected in zip(built.unpack(packed), (obs, encoded, valid), strict=True):
        assert torch.equal(actual, expected)


# Previous actions and rewards


@pytest.mark.parametrize("name", ACTION_SPACES)
@pytest.mark.parametrize(("num_actions", "num_rewards"), [(1, 0), (3, 1), (1, 3)])
def test_previous_actions_are_encoded_as_on_the_new_stack(name, num_actions, num_rewards):
    space, num_steps = ACTION_SPACES[name], 9
    space.seed(0)
    attention = AttentionConfig(
        num_layers=1, window=3, prev_actions=num_actions, prev_rewards=num_rewards
    )
    actions = [space.sample() for _ in range(num_steps - 1)]
    rewards = np.random.default_rng(0).normal(size=num_steps - 1).astype(np.float32)
    expected = PrevInputs(space, num_actions, num_rewards).sequence(actions, rewards, 0, num_steps)

    steps = StepState(VECTOR, space, attention)
    flat = np.stack([flatten_to_single_ndarray(action) for action in actions[:1] + actions])
    is_first = torch.arange(num_steps).unsqueeze(0) == 0
    rows = steps.previous_rows(
        torch.as_tensor(flat), torch.as_tensor(np.append(7.0, rewards)), is_first
    )
    before = torch.from_numpy(steps.prev.none).expand(1, steps.prev.depth - 1, -1)
    stacked = steps.prev.stack(torch.cat((before, rows), dim=1))
    np.testing.assert_array_equal(stacked[0], expected)


def test_actions_may_come_in_their_own_structure():
    space = ACTION_SPACES["dict"]
    steps = StepState(VECTOR, space, AttentionConfig(prev_actions=1))
    actions = {"a": torch.tensor([1, 0]), "b": torch.tensor([[0, 2], [1, 1]])}
    flat = torch.tensor([[1, 0, 2], [0, 1, 1]])
    is_first = torch.zeros(2, 1, dtype=torch.bool)
    rows = [steps.previous_rows(given, None, is_first) for given in (actions, flat)]
    assert torch.equal(*rows)
