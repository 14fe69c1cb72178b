"""AttentionPolicy from policies of the old stack acts as they do themselves, whatever is around."""

import re

import numpy as np
import pytest
import tree
from gymnasium.spaces import Box, Dict, Discrete
from ray.rllib.models.catalog import ModelCatalog
from ray.rllib.utils.spaces.space_utils import clip_action, unsquash_action

from rllib_attention import AttentionPolicy
from tests.export.sessions import assert_same as same
from tests.export.sessions import play
from tests.export.test_policy_step import step_of
from tests.old_stack.support import (
    ACTION_SPACES,
    OBSERVATION_SPACES,
    ppo_config,
    rollout_worker,
    take_sides,
)

STEPS = 25  # context 6: on long after the window
DEFAULT = "default_policy"
PAST = {"prev_actions": 2, "prev_rewards": 1, "num_layers": 2}


def named(spaces, space):
    return spaces[space] if isinstance(space, str) else space


def slow(spaces, *fast):
    return [pytest.param(s, marks=[] if s in fast else pytest.mark.slow) for s in spaces]


def make_worker(observations="box", actions="discrete", config=None, model=None, **options):
    """Returns a worker whose filters have seen something, and its policy takes sides."""
    spaces = {
        "observation_space": named(OBSERVATION_SPACES, observations),
        "action_space": named(ACTION_SPACES, actions),
    }
    made = ppo_config(env_config=spaces, model=model, **(PAST | options))
    made.debugging(seed=0).env_runners(**(config or {}))
    worker = rollout_worker(made)
    take_sides(worker.policy_map[DEFAULT])
    worker.sample()
    return worker


def steps_of(worker, seed=1):
    space = worker.config.env_config["observation_space"]
    space.seed(seed)
    rng = np.random.default_rng(seed)
    return [(space.sample(), float(rng.normal())) for _ in range(STEPS)]


def by_rllib(worker, steps):
    """Returns actions, values and logits as the old policy computes them, state handed back."""
    policy, config = worker.policy_map[DEFAULT], worker.config
    space, observe = worker.config.env_config["observation_space"], worker.filters[DEFAULT]
    preprocessor = ModelCatalog.get_preprocessor_for_space(space, config["model"])
    state, action, reward, found = policy.get_initial_state(), None, None, []
    for obs, next_reward in steps:
        seen = observe(preprocessor.transform(obs), update=False)
        past = {"prev_action": action, "prev_reward": reward, "explore": False}
        action, state, extra = policy.compute_single_action(seen, state, **past)
        struct, returned = policy.action_space_struct, action
        if config.normalize_actions:
            returned = unsquash_action(action, struct)
        elif config.clip_actions:
            returned = clip_action(action, struct)
        found.append((returned, extra["vf_preds"], extra["action_dist_inputs"]))
        reward = next_reward
    return found


def by_us(policy, steps):
    policy.reset()
    reward, found = None, []
    for obs, next_reward in steps:
        action = policy.act(obs, prev_reward=reward)
        logits = policy._pass.last._outputs["action_dist_inputs"][0].numpy()
        found.append((action, policy.values(), logits))
        reward = next_reward
    return found


def assert_same(ours, theirs):
    for our, their in zip(ours, theirs, strict=True):
        tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4), our, their
        )


def check(worker, tmp_path):
    worker.policy_map[DEFAULT].export_checkpoint(str(tmp_path))
    policy = AttentionPolicy.from_checkpoint(tmp_path)
    assert policy.observation_space == worker.config.env_config["observation_space"]
    steps = steps_of(worker)
    theirs = by_rllib(worker, steps)
    assert np.ptp([logits for _, _, logits in theirs], axis=0).min() > 0.05  # it takes sides
    assert_same(by_us(policy, steps), theirs)
    assert_same(by_us(policy, steps), theirs)  # nothing in it has changed
    return policy


@pytest.mark.parametrize("name", slow(OBSERVATION_SPACES, "dict", "image"))
def test_every_observation_space(name, tmp_path):
    check(make_worker(name), tmp_path)


@pytest.mark.parametrize("name", slow(ACTION_SPACES, "box", "dict"))
def test_every_action_space(name, tmp_path):
    check(make_worker(actions=name), tmp_path)


@pytest.mark.parametrize("observations", slow(["box", "dict"], "dict"))
@pytest.mark.parametrize(
    "filter_name", slow(["MeanStdFilter", "ConcurrentMeanStdFilter"], "MeanStdFilter")
)
def test_filters(observations, filter_name, tmp_path):
    worker = make_worker(observations, config={"observation_filter": filter_name})
    check(worker, tmp_path)
    stats = worker.filters[DEFAULT].as_serializable().running_stats
    assert np.abs(stats.mean).max() > 0.01  # it does something


@pytest.mark.slow
@pytest.mark.parametrize("model", [{"vf_share_layers": True}, {"post_fcnet_hiddens": [8]}])
@pytest.mark.parametrize("options", [{"prev_actions": 0, "prev_rewards": 0}, {"dropout": 0.5}])
def test_models(model, options, tmp_path):
    check(make_worker(model=model, **options), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("normalize", "clip"), [(True, False), (False, True), (False, False)])
def test_bounds_of_actions(normalize, clip, tmp_path):
    config = ppo_config(
        env_config={"action_space": Box(-0.5, 2.0, (2,), np.float32)}, prev_actions=1
    ).environment(normalize_actions=normalize, clip_actions=clip)
    config.env_config["observation_space"] = OBSERVATION_SPACES["box"]
    worker = rollout_worker(config.debugging(seed=0))
    take_sides(worker.policy_map[DEFAULT])
    check(worker, tmp_path)


def test_preprocessors_that_change_more_than_shapes(tmp_path):
    """Atari's RAM, which the old stack standardises."""
    check(make_worker(Box(0, 255, (128,), np.uint8)), tmp_path)


def test_it_is_exported_like_any_other(tmp_path):
    space = Dict({"b": Discrete(3), "a": Box(-1, 1, (2,), np.float32)})
    filtered = {"observation_filter": "MeanStdFilter"}
    worker = make_worker(space, "box", filtered, prev_actions=0)
    worker.policy_map[DEFAULT].export_checkpoint(str(tmp_path))
    policy = AttentionPolicy.from_checkpoint(tmp_path)
    same(play(policy, *step_of(policy)))


# Errors


def refused(worker, tmp_path, message):
    worker.policy_map[DEFAULT].export_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(message)):
        AttentionPolicy.from_checkpoint(tmp_path)


def test_actions_without_a_distribution_on_the_new_stack(tmp_path):
    worker = make_worker(actions=Box(0, 3, (2,), np.int64))
    refused(worker, tmp_path, "which has none for Box(0, 3, (2,), int64) of the old one")


def test_rewards_that_are_clipped_before_the_model_reads_them(tmp_path):
    worker = make_worker(config={}, prev_rewards=0)
    check(worker, tmp_path / "unread")
    config = ppo_config(env_config={}, prev_rewards=1).environment(clip_rewards=True)
    message = "but policy 'clipped' has ['ClipRewardAgentConnector']. Fix: act by `Policy.from_"
    refused(rollout_worker(config), tmp_path / "clipped", message)
