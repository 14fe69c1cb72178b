"""Real runs of DQN and SAC: the learner's connectors see true histories."""

import functools

import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.env.multi_agent_env import make_multi_agent
from ray.tune.registry import register_env

from rllib_attention.new_stack.connectors import AddWindowsToTrainBatch
from rllib_attention.new_stack.replay_buffers import upgrade_replay_buffer
from tests.new_stack.replay_buffers.history_connector import CheckHistories, read_lengths
from tests.new_stack.replay_buffers.marked_episodes import MarkedEnv

pytestmark = pytest.mark.usefixtures("cluster")

HISTORY_LEN = 4
PRIORITISED = {"type": "PrioritizedEpisodeReplayBuffer", "alpha": 0.6, "beta": 0.4}


def upgrade(algorithm, **kwargs) -> None:
    upgrade_replay_buffer(
        algorithm.local_replay_buffer,
        history_len=HISTORY_LEN,
        run_len=4,
        num_shards=max(1, algorithm.config.num_learners),
    )


def configured(config, log, *, buffer, n_step=1, num_learners=0):
    return (
        config.environment(MarkedEnv, env_config={"continuous": isinstance(config, SACConfig)})
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=2,
            # RLlib compares an int with `n_step`, and fails if that is a tuple.
            rollout_fragment_length="auto" if isinstance(n_step, tuple) else 7,
        )
        .training(
            replay_buffer_config={**buffer, "capacity": 500},
            n_step=n_step,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=20,
        )
        .rl_module(model_config={"fcnet_hiddens": [8], "head_fcnet_hiddens": [8]})
        .learners(
            num_learners=num_learners,
            learner_connector=functools.partial(
                lambda *_, **kw: [CheckHistories(**kw), AddWindowsToTrainBatch()],
                log=str(log),
                history_len=HISTORY_LEN,
            ),
        )
        .reporting(min_sample_timesteps_per_iteration=30)
        .callbacks(on_algorithm_init=upgrade)
        .debugging(seed=0)
    )


@pytest.mark.parametrize(
    ("config_class", "buffer", "n_step", "num_learners"),
    [
        (DQNConfig, {"type": "EpisodeReplayBuffer"}, 1, 0),
        (DQNConfig, PRIORITISED, 1, 0),
        (DQNConfig, {"type": "EpisodeReplayBuffer"}, 3, 0),
        (DQNConfig, PRIORITISED, (1, 5), 1),
        (SACConfig, PRIORITISED, 1, 2),
        (SACConfig, {"type": "EpisodeReplayBuffer"}, 1, 0),
        (SACConfig, PRIORITISED, 3, 0),
    ],
)
@pytest.mark.slow
def test_learner_connectors_see_histories(tmp_path, config_class, buffer, n_step, num_learners):
    config = configured(
        config_class(), tmp_path / "log", buffer=buffer, n_step=n_step, num_learners=num_learners
    )
    algo = config.build_algo()
    try:
        for _ in range(3):
            algo.train()
        if "Prioritized" in buffer["type"]:
            assert algo.local_replay_buffer._last_sampled_indices == [], "priorities not updated"
            assert algo.local_replay_buffer._max_priority > 1.0
    finally:
        algo.stop()
    batches = read_lengths(tmp_path / "log")
    assert len(batches) >= 3
    assert all(len(lengths) == 16 for lengths in batches)  # of each learner
    assert {0, HISTORY_LEN} <= {length for lengths in batches for length in lengths}


@pytest.mark.parametrize(
    "buffer",
    [
        {"type": "MultiAgentEpisodeReplayBuffer"},
        {**PRIORITISED, "type": "MultiAgentPrioritizedEpisodeReplayBuffer"},
    ],
)
def test_multi_agent_learner_connectors_see_histories(tmp_path, buffer):
    register_env("marked", lambda c: make_multi_agent(lambda _: MarkedEnv(c))({"num_agents": 2}))
    config = configured(DQNConfig(), tmp_path / "log", buffer=buffer)
    config.environment("marked").multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda agent_id, *_, **__: f"p{agent_id}"
    ).env_runners(num_envs_per_env_runner=1)
    algo = config.build_algo()
    try:
        for _ in range(3):
            algo.train()
    finally:
        algo.stop()
    batches = read_lengths(tmp_path / "log")
    assert len(batches) >= 3
    assert {0, HISTORY_LEN} <= {length for lengths in batches for length in lengths}
