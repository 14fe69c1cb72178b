"""A checkpoint's weights go into modules that compute the same with them, or are refused."""

import re

import pytest
from gymnasium import spaces
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.new_stack.saved_options import SAVED_OPTIONS

OPTIONS = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=3, ffn_dim=8)
SPACES = dict.fromkeys(("__env__", "default_policy"), (spaces.Box(-1, 1, (3,)), spaces.Discrete(2)))


def make_learner(**changed):
    config = use_attention(PPOConfig(), OPTIONS.replace(**changed))
    learner = config.build_learner(spaces=SPACES)
    learner.build()
    return learner


@pytest.fixture(scope="module")
def state():
    return make_learner().get_state()


@pytest.mark.parametrize(
    "changed", [{"window": 4}, {"dilation": 2}, {"position": "rotary"}, {"num_heads": 1}]
)
def test_options_that_change_what_weights_compute(state, changed):
    [(name, value)] = changed.items()
    trained = {**OPTIONS.to_dict(), "position": "relative_bias"}[name]
    said = f"trained with {name}={trained!r}, got {name}={value!r} here"
    with pytest.raises(ValueError, match=re.escape(said)) as refusal:
        make_learner(**changed).set_state(state)
    # RLlib would leave a position's weights as they began, without a word.
    assert ("restore the weights alone" in str(refusal.value)) == (name != "position")


@pytest.mark.parametrize(
    "changed", [{}, {"dropout": 0.3}, {"max_seq_len": 7}, {"position": "relative_bias"}]
)
def test_options_that_say_how_to_train(state, changed):
    make_learner(**changed).set_state(state)


def test_a_state_of_an_older_version(state):
    older = {key: value for key, value in state.items() if key != SAVED_OPTIONS}
    make_learner(window=4).set_state(older)  # which says nothing of options
    learner = make_learner(start_embedding=False, token_size=0.0)
    older = learner.get_state()
    for name in ("start_embedding", "token_size"):
        del older[SAVED_OPTIONS]["default_policy"][name]
    learner.set_state(older)
    said = "trained with token_size=0.0, start_embedding=False, got token_size=1.0, start_emb"
    with pytest.raises(ValueError, match=said):
        make_learner().set_state(older)


def test_a_state_of_a_version_with_other_defaults(state):
    """It names the position that it was trained with; what it left out is as it was."""
    learner = make_learner(position="recency")
    older = learner.get_state()
    options = older[SAVED_OPTIONS]["default_policy"]
    options |= {"token_size": None, "start_embedding": None}
    learner.set_state(older)
    with pytest.raises(ValueError, match="trained with position='recency', got position='rel"):
        make_learner().set_state(older)


def test_parts_of_a_state_have_no_options():
    assert SAVED_OPTIONS not in make_learner().get_state(components="rl_module")
