"""Connector factories: the user's pieces in whatever form RLlib takes them, then ours."""

import pickle

import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter

from rllib_attention import use_attention
from rllib_attention.new_stack.connectors import AddRolloutContext
from rllib_attention.new_stack.connectors.factories import AppendPieces, as_list, is_connected


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, []),
        (lambda env, spaces, device: None, []),
        (lambda env, spaces, device: ["a", "b"], ["a", "b"]),
        (lambda env, spaces, device: ("a",), ["a"]),
        (lambda env, spaces, device: (env, spaces, device)[1], [2]),
        # RLlib still takes factories of fewer arguments.
        (lambda env: env, [1]),
        (lambda env, spaces=None: spaces, [2]),
        (lambda *args: sum(args), [6]),
        (lambda: "a", ["a"]),
    ],
)
def test_the_users_pieces_come_first(user, expected):
    assert AppendPieces(user, (lambda: "ours", lambda: "more"))(1, 2, 3) == [
        *expected,
        "ours",
        "more",
    ]


def test_keyword_only_arguments_are_not_filled():
    def user(env, *, option="default"):
        return option

    assert AppendPieces(user, ())(1, 2, 3) == ["default"]


def test_factories_of_classes_pickle():
    factory = AppendPieces(MeanStdFilter, (AddRolloutContext,))
    assert pickle.loads(pickle.dumps(factory)) == factory


def test_is_connected():
    config = PPOConfig()
    assert not is_connected(config)
    assert is_connected(use_attention(config))
    assert not is_connected(config.learners(learner_connector=None))


def test_as_list():
    assert as_list(None) == []
    assert as_list("ab") == ["ab"]
    assert as_list((1, 2)) == as_list([1, 2]) == [1, 2]
