"""`use_attention` on the new API stack, as a whole."""

import re

import numpy as np
import pytest
from gymnasium import spaces
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import use_attention
from tests.harness import (
    PARITY,
    RandomMultiAgentEnv,
    build,
    mismatch,
    prepare,
    sample,
    worst_mismatch,
)


def test_returns_the_same_config_and_sets_the_lookback():
    config = PPOConfig()
    assert use_attention(config, num_layers=3, window=5, prev_actions=2) is config
    assert config.episode_lookback_horizon == 3 * 4 + 2
    assert config.model_config["max_seq_len"] == 16


def test_unknown_algorithms_say_which_path_they_take(caplog):
    class Own(AlgorithmConfig):
        def get_default_rl_module_spec(self):
            return DQNConfig().get_default_rl_module_spec()

    with caplog.at_level("INFO"):
        config = use_attention(Own())
    assert "Own derives from no algorithm of RLlib" in caplog.text
    assert config.model_config["attention"]["windowed"]


def test_keeps_model_config_connectors_and_callbacks(stop):
    calls = []
    config = prepare(PPOConfig())
    config.rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8], head_fcnet_hiddens=[4]))
    config.env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter())
    config.callbacks(on_algorithm_init=lambda algorithm, **kwargs: calls.append(algorithm))
    config.training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
    algo = stop(build(config))
    assert calls == [algo]
    module = algo.get_module()
    assert module.encoder.encoder.embedding.tokenizer.config.output_dims == (8,)
    assert worst_mismatch(algo) < PARITY
    names = [type(piece).__name__ for piece in algo.env_runner._env_to_module.connectors]
    assert names[:2] == ["MeanStdFilter", "AddRolloutContext"]


def test_episodes_hold_what_they_hold_with_an_mlp(stop):
    plain = stop(prepare(PPOConfig()).build_algo())
    attention = stop(build(prepare(PPOConfig()), window=9))
    columns = [
        {
            name: np.asarray(values.data).dtype
            for name, values in episode.extra_model_outputs.items()
        }
        for algo in (plain, attention)
        for episode in sample(algo, num_timesteps=30)[:1]
    ]
    assert columns[0] == columns[1]
    assert Columns.STATE_OUT not in columns[1]


class OwnObservations(ConnectorV2):
    """Puts observations into the batch by itself."""

    def __init__(self, factor=1.0):
        super().__init__()
        self._factor = factor

    def __call__(self, *, batch, episodes, **kwargs):
        for episode in self.single_agent_episode_iterator(episodes):
            item = self._factor * episode.get_observations(-1)
            self.add_batch_item(batch, Columns.OBS, item, episode)
        return batch


@pytest.mark.parametrize("multi_agent", [False, True])
def test_pieces_that_change_observations_in_the_batch(stop, multi_agent):
    """The learner would not see the change: it builds its batch from the episodes."""
    config = prepare(PPOConfig())
    if multi_agent:
        config = prepare(PPOConfig(), RandomMultiAgentEnv).multi_agent(policies={"p0"})
        config.multi_agent(policy_mapping_fn=lambda *args, **kwargs: "p0")
    same, other = (
        config.copy().env_runners(
            env_to_module_connector=lambda env, spaces, device, factor=factor: OwnObservations(
                factor
            )
        )
        for factor in (1.0, 2.0)
    )
    algo = stop(build(same))
    assert mismatch(algo, sample(algo, num_timesteps=30)) < PARITY
    with pytest.raises(ValueError, match="Attention expects the observations of the episodes"):
        sample(stop(build(other)), num_timesteps=30)


def test_non_finite_observations_name_the_module(stop):
    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    algo = stop(build(prepare(PPOConfig(), observation_space=space)))
    runner = algo.env_runner
    sample(algo, num_timesteps=6)
    runner._cached_to_module[Columns.OBS][0] = float("nan")
    message = "Observations of the RLModule hold 2 non-finite values (NaN or infinity) of 6"
    with pytest.raises(ValueError, match=re.escape(message)):
        sample(algo, num_timesteps=6)
