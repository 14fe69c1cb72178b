"""README's "Can I use it?" table: each of its cells is a test here or is named here.

Training computes what the rollout computed, for each algorithm with each of its action spaces and
with each kind of observation, previous actions and rewards included.
"""

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import ray
import tree
from gymnasium import spaces
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.algorithms.utils import AggregatorActor
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.columns import Columns

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.new_stack.algorithms import DataPath, algorithm_traits, trains_offline
from tests.harness import IMAGE, PARITY, VECTOR, RandomMultiAgentEnv, prepare
from tests.pair import Pair

README = Path(__file__).parents[2] / "README.md"
SMALL = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=5, ffn_dim=16, max_seq_len=16)

ACTIONS = {
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "Box": spaces.Box(-1.0, 1.0, (2,)),
    "Dict": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1.0, 1.0, (1,))}),
    "Tuple": spaces.Tuple((spaces.Discrete(2), spaces.MultiDiscrete([2, 2]))),
}
# Whether a space goes through `FlattenObservations`.
OBSERVATIONS = {
    "vector": (VECTOR, False),
    "bytes": (spaces.Box(0, 255, (5,), "uint8"), False),
    "image": (IMAGE, False),
    "float image": (spaces.Box(0.0, 1.0, (42, 42, 3)), False),
    "Discrete": (spaces.Discrete(4), True),
    "MultiDiscrete": (spaces.MultiDiscrete([3, 2]), True),
    "Dict": (spaces.Dict({"a": spaces.Box(-1, 1, (2, 2)), "b": spaces.MultiBinary(2)}), True),
    "Tuple": (spaces.Tuple((spaces.Discrete(2), VECTOR)), True),
}


@dataclass(frozen=True)
class Support:
    """One row of the table.

    Attributes:
        config_class: The algorithm.
        actions: Keys of `ACTIONS`.
        multi_agent: What the table says about it.
        remote_learners: Whether several learners in other processes are tested.
    """

    config_class: type[AlgorithmConfig]
    actions: tuple[str, ...]
    multi_agent: str
    remote_learners: bool = False


EVERY = tuple(ACTIONS)
STAY = "yes, if agents stay to the end"
OFFLINE = "RLlib has none offline"
SUPPORT = {
    "PPO": Support(PPOConfig, EVERY, "yes", remote_learners=True),
    "APPO": Support(APPOConfig, EVERY, "yes", remote_learners=True),
    "IMPALA": Support(IMPALAConfig, EVERY, "yes", remote_learners=True),
    "BC": Support(BCConfig, EVERY, OFFLINE),
    "MARWIL": Support(MARWILConfig, EVERY, OFFLINE),
    "DQN": Support(DQNConfig, ("Discrete",), STAY, remote_learners=True),
    "SAC": Support(SACConfig, ("Discrete", "Box"), STAY, remote_learners=True),
    "TQC": Support(TQCConfig, ("Box",), STAY, remote_learners=True),
    "CQL": Support(CQLConfig, ("Box",), OFFLINE),
    "IQL": Support(IQLConfig, ("Box",), OFFLINE),
}


def pair(config: AlgorithmConfig) -> Pair:
    if trains_offline(config):
        config.offline_data(
            input_=["/recorded"], input_read_episodes=True, dataset_num_iters_per_learner=5
        )
    config.env_runners(rollout_fragment_length=30)
    return Pair(use_attention(config, SMALL, prev_actions=2, prev_rewards=1))


@pytest.mark.parametrize(
    ("name", "action"), [(name, action) for name, s in SUPPORT.items() for action in s.actions]
)
def test_actions(name, action):
    config = prepare(SUPPORT[name].config_class(), action_space=ACTIONS[action])
    assert pair(config).mismatch() < PARITY


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("name", SUPPORT)
def test_observations(name, observation):
    support, (space, flatten) = SUPPORT[name], OBSERVATIONS[observation]
    config = prepare(
        support.config_class(), action_space=ACTIONS[support.actions[0]], observation_space=space
    )
    if flatten:
        config.env_runners(
            env_to_module_connector=lambda env, spaces, device: FlattenObservations()
        )
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 3:
        filters = {"conv_filters": [[4, 8, 4], [8, 4, 2]], "head_fcnet_hiddens": []}
        config.rl_module(model_config=filters)
    assert pair(config).mismatch(num_timesteps=45) < PARITY


@pytest.mark.parametrize("mode", ["turns", "random"])
@pytest.mark.parametrize("name", [n for n, s in SUPPORT.items() if s.multi_agent == "yes"])
def test_multi_agent(name, mode):
    """Agents at different rates; the window path's test is in `test_off_policy.py`."""
    config = prepare(SUPPORT[name].config_class(), RandomMultiAgentEnv, mode=mode)
    config.env_runners(num_envs_per_env_runner=2)
    config.multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda aid, *args, **kw: f"p{int(aid[-1]) % 2}"
    )
    assert pair(config).mismatch() < PARITY


@pytest.mark.parametrize("name", ["APPO", "IMPALA"])
def test_aggregator_actors_build_the_learners_batch(name):
    """The actor's own code, called here."""
    config = prepare(SUPPORT[name].config_class()).training(train_batch_size_per_learner=90)
    learner = pair(config.learners(num_aggregator_actors_per_learner=1))
    episodes = learner.runner.sample(num_timesteps=90)
    expected = learner.pipeline(
        rl_module=learner.module,
        batch={},
        episodes=copy.deepcopy(episodes),
        shared_data={},
        metrics=None,
    )
    spec = config.get_multi_rl_module_spec(spaces=learner.runner.get_spaces())
    batch = AggregatorActor(config, spec).get_batch([ray.put(episodes)])
    for column, values in expected["default_policy"].items():
        tree.map_structure(np.testing.assert_array_equal, values, batch["default_policy"][column])
    assert Columns.STATE_IN in expected["default_policy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, s in SUPPORT.items() if s.remote_learners])
def test_remote_runners_and_learners(stop, name):
    """All learners end up with the same weights. APPO and IMPALA run aggregator actors too."""
    support, is_asynchronous = SUPPORT[name], name in ("APPO", "IMPALA")
    config = prepare(support.config_class(), action_space=ACTIONS[support.actions[0]])
    config.env_runners(num_env_runners=2, rollout_fragment_length=20)
    config.learners(num_learners=2).reporting(min_time_s_per_iteration=0)
    config.training(train_batch_size_per_learner=120)
    if algorithm_traits(config).data_path is DataPath.WINDOW:
        config.env_runners(rollout_fragment_length=1)
        config.reporting(min_sample_timesteps_per_iteration=40)
        config.training(
            train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=30
        )
    elif is_asynchronous:
        config.learners(num_aggregator_actors_per_learner=1)
    else:
        config.training(minibatch_size=64, num_epochs=1)
    algo = stop(use_attention(config, SMALL, prev_actions=1).build_algo())
    loss, stop_at = None, time.monotonic() + 180
    while loss is None and time.monotonic() < stop_at:
        loss = algo.train().get("learners", {}).get("default_policy", {}).get("total_loss")
    assert loss is not None
    assert np.isfinite(loss)
    if is_asynchronous:
        return  # each learner's thread may be at another update
    states = algo.learner_group.foreach_learner(lambda learner: learner.module.get_state())
    first, second = (result.get()["default_policy"] for result in states)
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def rows() -> dict[str, str]:
    """Returns what the table must say."""
    out = {}
    for name, support in SUPPORT.items():
        config = support.config_class()
        path = algorithm_traits(config).data_path.value
        if trains_offline(config):
            path += ", from recorded episodes"
        actions = ", ".join(support.actions)
        remote = "yes" if support.remote_learners else "not tested"
        out[name] = f"| {name} | {path} | {actions} | {support.multi_agent} | {remote} |"
    return out


@pytest.mark.parametrize("name", SUPPORT)
def test_readme_says_what_is_tested(name):
    assert rows()[name] in README.read_text().split("\n")
