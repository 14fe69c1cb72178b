"""BC, MARWIL, CQL and IQL: what is set so that recorded episodes keep their past, and refused."""

import pytest
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.new_stack.replay_buffers import OfflineChunkBuffer, OfflineHistoryBuffer
from tests.refusal import refuses

ALL = {"BC": BCConfig, "MARWIL": MARWILConfig, "CQL": CQLConfig, "IQL": IQLConfig}
WINDOW = ("CQL", "IQL")
ATTENTION = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=3, ffn_dim=16, max_seq_len=5)


def offline_config(config_class: type, **data) -> AlgorithmConfig:
    data = {"input_read_episodes": True, "dataset_num_iters_per_learner": 5} | data
    return config_class().offline_data(input_=["/recorded"], **data)


@pytest.mark.parametrize("name", ALL)
def test_what_was_left_at_its_default_is_set(name):
    config = use_attention(offline_config(ALL[name]), ATTENTION)
    assert config.materialize_mapped_data is False
    assert config.episode_lookback_horizon >= ATTENTION.history_len
    assert config.model_config["max_seq_len"] == ATTENTION.max_seq_len
    is_window = name in WINDOW
    expected = OfflineHistoryBuffer if is_window else OfflineChunkBuffer
    assert config.prelearner_buffer_class is expected
    kwargs = {"history_len": ATTENTION.history_len, "run_len": ATTENTION.max_seq_len}
    assert config.prelearner_buffer_kwargs == (kwargs if is_window else {})


def test_a_sweep_gets_its_longest_history():
    config = offline_config(CQLConfig, prelearner_buffer_kwargs={"capacity": 7})
    use_attention(config, ATTENTION, window=tune.grid_search([2, 9]))
    assert config.prelearner_buffer_kwargs == {"capacity": 7, "history_len": 16, "run_len": 5}


def test_a_second_try_with_a_longer_window():
    """What a refused call would have set must not be taken for the user's setting."""
    config = offline_config(CQLConfig).training(n_step=3)
    with refuses(config, ValueError, "`n_step` must be 1"):
        use_attention(config, window=4)
    use_attention(config.training(n_step=1), num_layers=1, window=33)
    assert config.prelearner_buffer_kwargs["history_len"] == 32


def test_own_buffers_stay():
    class MyChunkBuffer(EpisodeReplayBuffer):
        pass

    class MyHistoryBuffer(OfflineHistoryBuffer):
        pass

    for config_class, buffer in ((BCConfig, MyChunkBuffer), (IQLConfig, MyHistoryBuffer)):
        config = offline_config(config_class, prelearner_buffer_class=buffer)
        assert use_attention(config, ATTENTION).prelearner_buffer_class is buffer


def test_online_algorithms_keep_their_offline_settings():
    config = use_attention(PPOConfig().environment("CartPole-v1"))
    assert config.materialize_mapped_data
    assert config.prelearner_buffer_class is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            offline_config(BCConfig, input_read_episodes=False),
            "expected `input_read_episodes=True`, got False. Use `config.offline_data(",
        ),
        (
            offline_config(BCConfig).multi_agent(policies={"a", "b"}),
            "RLlib reads offline data of a single agent only",
        ),
        (
            offline_config(CQLConfig, dataset_num_iters_per_learner=1),
            "`dataset_num_iters_per_learner` must be at least 2 for CQL",
        ),
        (
            offline_config(CQLConfig).training(n_step=3),
            "`n_step` must be 1 for offline data, got 3",
        ),
        (
            offline_config(IQLConfig, prelearner_buffer_class=EpisodeReplayBuffer),
            "`prelearner_buffer_class` must be an OfflineHistoryBuffer, whose samples carry their "
            "past, got 'EpisodeReplayBuffer'.",
        ),
        (
            offline_config(IQLConfig, prelearner_buffer_kwargs={"history_len": 3}),
            "must hold a `history_len` of at least the 4 steps that attention looks back, got 3.",
        ),
    ],
)
def test_what_cannot_work_is_refused(config, message):
    with refuses(config, ValueError, message):
        use_attention(config, ATTENTION)


def test_a_missing_reader_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install msgpack-numpy"):
        use_attention(offline_config(BCConfig), ATTENTION)
