"""AttentionPolicy from what users have: checkpoints of every kind of algorithm, far clocks."""

import numpy as np
import pytest
import ray
import torch
from gymnasium.spaces import Box, Discrete
from ray import tune
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_attention import AttentionConfig, AttentionPolicy, use_attention
from tests import memory_env, policies
from tests.memory_env import RepeatPast
from tests.policies import (
    SMALL,
    VECTOR,
    assert_same,
    config_of,
    differ,
    played_by,
    random_policy,
    random_steps,
    replayed,
    take_sides,
    with_pieces,
)

OFFLINE = {"BC": BCConfig, "MARWIL": MARWILConfig, "CQL": CQLConfig, "IQL": IQLConfig}
TINY = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=3, ffn_dim=8, max_seq_len=5)


@pytest.fixture(autouse=True)
def by_value():
    """Ray's workers do not have the tests' folder on their path."""
    ray.cloudpickle.register_pickle_by_value(memory_env)
    # This one not for good: what is loaded by value sets the attributes of its classes back.
    ray.cloudpickle.register_pickle_by_value(policies)
    yield
    ray.cloudpickle.unregister_pickle_by_value(policies)


def by_hand(policy, observations):
    """What the module itself computes for the last observation, from all of them."""
    policy.reset()
    return [policy.act(obs) for obs in observations][-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_offline_algorithms(name, stop, tmp_path):
    """They have no runners, only pipelines; what is restored acts as the learner's module does."""
    rng = np.random.default_rng(0)
    steps = [rng.uniform(-1, 1, (21, 1)).astype(np.float32) for _ in range(6)]
    episodes = [
        SingleAgentEpisode(
            observations=list(obs),
            actions=[np.float32([0.5])] * 20,
            rewards=[1.0] * 20,
            terminated=True,
            len_lookback_buffer=0,
        )
        for obs in steps
    ]
    import msgpack
    import msgpack_numpy

    packed = [msgpack.packb(e.get_state(), default=msgpack_numpy.encode) for e in episodes]
    ray.data.from_items([{"item": item} for item in packed]).write_parquet(str(tmp_path / "data"))
    config = OFFLINE[name]().environment(
        RepeatPast,
        observation_space=RepeatPast.observation_space,
        action_space=RepeatPast.action_space,
    )
    config.offline_data(
        input_=[str(tmp_path / "data")],
        input_read_episodes=True,
        dataset_num_iters_per_learner=5,
    )
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    if name == "CQL":
        config.training(lr=None)
    algo = stop(use_attention(config, TINY).build_algo())
    path = algo.save_to_path(tmp_path / "checkpoint")
    policy = AttentionPolicy.from_checkpoint(path)
    assert policy.observation_space == RepeatPast.observation_space
    learned = algo.learner_group._learner.module[DEFAULT_MODULE_ID]
    theirs = dict(learned.named_parameters())  # and those of targets
    for key, weight in policy.module.named_parameters():
        assert torch.equal(theirs[key], weight)
    live = AttentionPolicy(algo)
    for obs in steps[:2]:
        pairs = zip(*([p.act({"s": o}) for o in obs] for p in (policy, live)), strict=True)
        assert_same(*zip(*((a["s"], b["s"]) for a, b in pairs), strict=True))
        policy.close("s")
        live.close("s")
    expected = by_hand(policy, steps[0])
    policy.reset(history=[(obs, np.float32([0.5]), 0.0) for obs in steps[0][:-1]])
    assert_same([policy.act(steps[0][-1])], [expected])


@pytest.mark.slow
def test_remote_runners_and_their_filters(stop, tmp_path):
    actions = Box(-1.0, 1.0, (1,), np.float32)
    config = config_of(with_pieces(PPOConfig(), MeanStdFilter), VECTOR, actions, SMALL)
    config.env_runners(num_env_runners=2, create_env_on_local_worker=True)
    config.training(train_batch_size_per_learner=120, minibatch_size=60, num_epochs=1)
    algo = stop(config.build_algo())
    algo.train()
    policy = AttentionPolicy.from_checkpoint(algo.save_to_path(tmp_path))
    [restored] = policy._parts.env_to_module[MeanStdFilter]
    [local] = algo.env_runner._env_to_module[MeanStdFilter]
    stats = [piece.get_state()[None]["running_stats"][0] for piece in (restored, local)]
    assert stats[0]["num_pushes"] == stats[1]["num_pushes"] > 100
    steps = played_by(algo)
    assert_same(replayed(policy, steps), [action for _, action, _ in steps])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_result_of_tune(tmp_path):
    config = config_of(PPOConfig(), VECTOR, Discrete(5), SMALL)
    config.training(train_batch_size_per_learner=120, minibatch_size=60, num_epochs=1)
    tuner = tune.Tuner(
        "PPO",
        param_space=config,
        run_config=tune.RunConfig(
            stop={"training_iteration": 1},
            storage_path=str(tmp_path),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    )
    [result] = tuner.fit()
    policy = AttentionPolicy.from_checkpoint(result.checkpoint)
    twin = AttentionPolicy.from_checkpoint(result.checkpoint.path)
    steps = random_steps(12, 0, policy)
    assert_same(replayed(policy, steps), replayed(twin, steps))
    assert policy.action_space == Discrete(5)


def test_several_modules_alone(tmp_path):
    one, two = random_policy(SMALL), random_policy(SMALL, actions=Discrete(3))
    modules = MultiRLModule()
    for module_id, policy in (("p", one), ("q", two)):
        modules.add_module(module_id, policy.module)
    modules.save_to_path(tmp_path)
    with pytest.raises(ValueError, match=r"`module_id` must name a module with attention, one of"):
        AttentionPolicy.from_checkpoint(tmp_path)
    for module_id, policy in (("p", one), ("q", two)):
        restored = AttentionPolicy.from_checkpoint(tmp_path, module_id)
        steps = random_steps(10, 0, policy)
        assert_same(replayed(restored, steps), replayed(policy, steps))


def test_a_filter_that_learned_goes_on_from_a_given_history(stop):
    algo = stop(
        config_of(
            with_pieces(PPOConfig(), MeanStdFilter), VECTOR, Box(-1.0, 1.0, (1,), np.float32)
        ).build_algo()
    )
    take_sides(algo)
    algo.env_runner.sample(num_timesteps=50)
    policy = AttentionPolicy(algo)
    steps = played_by(algo)
    whole = replayed(policy, steps, told=len(steps))
    for start in (1, 7, 20):
        assert_same(replayed(policy, steps, start=start, told=len(steps)), whole[start:])
        # The steps that the context holds are enough.
        known = steps[max(0, start - policy._parts.lookback) : start]
        policy.reset(history=known)
        assert_same([policy.act(steps[start][0])], whole[start : start + 1])


def test_a_clock_beyond_100_000_steps():
    policy = random_policy(SMALL)
    rng = np.random.default_rng(0)
    recent = [rng.uniform(-1, 1, 3).astype(np.float32) for _ in range(40)]
    policy.reset("old")
    policy.act({"old": recent[0]})
    # As after 100,000 calls of `act`: an episode that began so long ago, cut to its lookback.
    session = policy._sessions["old"]
    session.episode.t_started = session.episode.t = 123_456
    policy.reset("young", history=[(recent[0], np.zeros(2, np.float32), 0.0)] * 1)
    old, young = [], []
    for obs in recent[1:]:
        actions = policy.act({"old": obs, "young": obs})
        old.append(actions["old"])
        young.append(actions["young"])
    assert session.episode.t == 123_456 + 39
    assert_same(old[SMALL.context_len :], young[SMALL.context_len :])
    assert differ(old[1:], old[:-1])
