"""What `use_attention` sets, what it keeps, and what it refuses."""

import re

import numpy as np
import pytest
from gymnasium import spaces
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

from rllib_attention import use_attention
from rllib_attention.new_stack.algorithms import Path, algorithm_path
from rllib_attention.new_stack.checks import module_options
from tests.harness import (
    PARITY,
    RandomMultiAgentEnv,
    build,
    mismatch,
    prepare,
    sample,
    worst_mismatch,
)


def refuses(error, message):
    return pytest.raises(error, match=re.escape(message))


def test_returns_the_same_config_and_sets_the_lookback():
    config = PPOConfig()
    assert use_attention(config, num_layers=3, window=5, prev_actions=2) is config
    assert config.episode_lookback_horizon == 3 * 4 + 2
    assert config.model_config["max_seq_len"] == 64


@pytest.mark.parametrize(
    ("training", "options", "length"),
    [
        ({}, {}, 64),  # half of RLlib's minibatch of 128
        ({"minibatch_size": 512}, {}, 124),  # twice the context of 62
        ({"minibatch_size": 512}, {"window": tune.grid_search([8, 64])}, 252),
        ({"minibatch_size": 40}, {}, 20),
        ({"minibatch_size": None}, {}, 64),
        ({"minibatch_size": tune.choice([64, 128])}, {}, 64),
        ({"train_batch_size_per_learner": 100, "minibatch_size": 512}, {}, 50),  # a fragment
        ({"minibatch_size": 512}, {"max_seq_len": 64}, 64),
        ({"minibatch_size": 512}, {"max_seq_len": 20}, 20),
    ],
)
def test_chunks_are_as_long_as_pays(training, options, length):
    config = PPOConfig().environment("CartPole-v1").training(**training)
    assert use_attention(config, **options).model_config["max_seq_len"] == length


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


def test_old_connector_factories_of_one_argument_work(stop):
    config = prepare(PPOConfig()).env_runners(env_to_module_connector=lambda env: MeanStdFilter())
    sample(stop(build(config)))


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


def test_search_spaces_raise_the_lookback_to_the_longest():
    config = PPOConfig()
    use_attention(config, num_layers=tune.grid_search([1, 3]), window=tune.choice([4, 8]))
    assert config.episode_lookback_horizon == 3 * 7


@pytest.mark.parametrize(
    ("config_class", "training"),
    [
        (PPOConfig, {"minibatch_size": tune.choice([64, 128])}),
        (PPOConfig, {"train_batch_size_per_learner": tune.grid_search([64, 128])}),
        (IMPALAConfig, {"num_epochs": tune.choice([1, 2]), "minibatch_size": tune.choice([128])}),
        (DQNConfig, {"n_step": tune.grid_search([1, 3])}),
        (
            DQNConfig,
            {
                "replay_buffer_config": {
                    "type": "PrioritizedEpisodeReplayBuffer",
                    "alpha": tune.choice([0.5, 0.6]),
                    "beta": tune.choice([0.4, 0.5]),
                }
            },
        ),
    ],
)
def test_other_settings_may_be_left_to_tune(config_class, training):
    """They are checked in the trial."""
    config = config_class().training(**training)
    use_attention(config, window=tune.choice([8, 16]), max_seq_len=32)


@pytest.mark.parametrize(
    ("config_class", "path"),
    [(PPOConfig, Path.SEQUENCE), (DQNConfig, Path.WINDOW), (SACConfig, Path.WINDOW)],
)
def test_own_algorithms_take_their_parents_path(config_class, path):
    class Own(config_class):
        pass

    assert algorithm_path(Own()) is path


def test_unknown_algorithms_take_the_window_path_and_say_so(caplog):
    class Own(AlgorithmConfig):
        pass

    with caplog.at_level("INFO"):
        assert algorithm_path(Own()) is Path.WINDOW
    assert "Own derives from no algorithm of RLlib" in caplog.text


def test_not_a_config():
    with refuses(
        TypeError, "`use_attention` expects an AlgorithmConfig such as PPOConfig(), got {"
    ):
        use_attention({"env": "CartPole-v1"})


def test_not_an_attention_config():
    with refuses(TypeError, "`attention` must be an AttentionConfig, got {'window': 3}"):
        use_attention(PPOConfig(), {"window": 3})


def test_unknown_option():
    with pytest.raises(ValueError, match="windw"):
        use_attention(PPOConfig(), windw=3)


def test_unknown_searched_option():
    with pytest.raises(ValueError, match="windw"):
        use_attention(PPOConfig(), windw=tune.choice([3, 4]))


@pytest.mark.parametrize(("values", "reason"), [([3, 5], "num_heads"), ([], "it is empty")])
def test_search_space_without_a_valid_value(values, reason):
    with pytest.raises(ValueError, match=f"Expected a search space .* {reason}"):
        use_attention(PPOConfig(), dim=16, num_heads=tune.grid_search(values))


def test_a_plain_value_may_need_a_searched_one():
    config = use_attention(PPOConfig(), dim=48, num_heads=tune.grid_search([5, 6]))
    assert config.model_config["attention"]["dim"] == 48


def test_dreamer():
    with refuses(ValueError, "DreamerV3 cannot use attention: it has no encoder to replace"):
        use_attention(DreamerV3Config())


def test_twice():
    config = use_attention(PPOConfig())
    with refuses(ValueError, "This config uses attention already"):
        use_attention(config)


LSTM = DefaultModelConfig(use_lstm=True)


@pytest.mark.parametrize(
    "model",
    [
        {"model_config": {"use_lstm": True}},
        {"model_config": LSTM},
        {"rl_module_spec": RLModuleSpec(model_config=LSTM)},
        {
            "rl_module_spec": MultiRLModuleSpec(
                rl_module_specs={"p0": RLModuleSpec(model_config=LSTM)}
            )
        },
    ],
)
def test_beside_an_lstm(model):
    config = PPOConfig().rl_module(**model)
    with refuses(ValueError, "`model_config` asks for `use_lstm=True`"):
        use_attention(config)


@pytest.mark.parametrize(
    ("train_batch_size", "minibatch_size", "smallest"), [(3000, 32, 64), (4000, 64, 65)]
)
def test_minibatch_smaller_than_a_chunk(train_batch_size, minibatch_size, smallest):
    """With 49 full chunks, RLlib rounds a minibatch of one chunk down to none."""
    config = PPOConfig().training(
        train_batch_size_per_learner=train_batch_size, minibatch_size=minibatch_size
    )
    with refuses(ValueError, f"`config.training(minibatch_size={smallest})`"):
        use_attention(config, max_seq_len=64)
    use_attention(config.training(minibatch_size=smallest), max_seq_len=64)


def test_rllib_rounds_minibatches_of_one_chunk_as_expected():
    rounded = [rows for rows in range(1, 60) if int(rows * (64 / (rows * 64))) < 1]
    assert rounded == [49]


def test_lookback_too_small():
    config = PPOConfig().env_runners(episode_lookback_horizon=5)
    with refuses(ValueError, "`episode_lookback_horizon` must be at least the 14 steps"):
        use_attention(config, num_layers=2, window=8)


def test_wrong_catalog():
    """TQC on SAC's catalog would train one quantile without a word."""
    config = TQCConfig().rl_module(rl_module_spec=RLModuleSpec(catalog_class=SACCatalog))
    with refuses(ValueError, "needs a catalog derived from TQCCatalog, got 'SACCatalog'"):
        use_attention(config)


def test_own_module():
    config = PPOConfig().rl_module(rl_module_spec=RLModuleSpec(module_class=RLModule))
    with refuses(ValueError, "`use_attention` builds attention into RLlib's default RLModules"):
        use_attention(config)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(0, 1, (4, 4))], ids=str)
def test_unsupported_observations(space):
    config = prepare(PPOConfig(), observation_space=space)
    with pytest.raises(ValueError, match="Attention needs observations that RLlib can tokenize"):
        build(config)


def test_settings_changed_afterwards():
    config = use_attention(prepare(PPOConfig()), max_seq_len=64)
    config.training(minibatch_size=16)
    with refuses(ValueError, "`minibatch_size` must be at least 65 with `max_seq_len` 64"):
        config.build_algo()


def test_connectors_replaced_afterwards():
    config = use_attention(prepare(PPOConfig()))
    config.env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter())
    with pytest.raises(ValueError, match="use_attention"):
        config.build_algo()


@pytest.mark.parametrize(
    "replaced", [{"model_config": {"fcnet_hiddens": [8]}}, {"rl_module_spec": RLModuleSpec()}]
)
def test_modules_replaced_afterwards(replaced):
    """RLlib would train an MLP without a word."""
    config = use_attention(prepare(PPOConfig())).rl_module(**replaced)
    with refuses(ValueError, "The modules of `use_attention` are gone"):
        config.build_algo()


def test_frame_stacking():
    config = prepare(PPOConfig(), observation_space=spaces.Box(0, 255, (42, 42, 1), np.uint8))
    config.rl_module(model_config={"conv_filters": [[4, 8, 4], [8, 4, 2]]})
    config.env_runners(
        env_to_module_connector=lambda env, spaces, device: FrameStackingEnvToModule(num_frames=3)
    )
    with refuses(ValueError, "FrameStacking writes its stacks elsewhere. Leave it out"):
        build(config)


@pytest.mark.parametrize(("buffer", "agents"), [("", "multi"), ("MultiAgent", "single")])
def test_replay_buffer_of_the_other_kind(buffer, agents):
    config = DQNConfig().training(
        replay_buffer_config={"type": f"{buffer}EpisodeReplayBuffer", "capacity": 100}
    )
    if agents == "multi":
        config.multi_agent(policies={"p0"})
    with refuses(ValueError, f"cannot store the episodes of a {agents}-agent set-up"):
        use_attention(config)


def test_replay_callback_replaced_afterwards(stop):
    """Without it, RLlib's buffer samples transitions without their past: windows of one step."""
    config = prepare(DQNConfig()).reporting(min_sample_timesteps_per_iteration=40)
    config.training(train_batch_size_per_learner=8, num_steps_sampled_before_learning_starts=8)
    config.reporting(min_time_s_per_iteration=0)
    config = use_attention(config, window=5).callbacks(on_algorithm_init=lambda **kwargs: None)
    algo = stop(config.build_algo())
    with refuses(ValueError, "Call `use_attention(config)` last"):
        algo.train()


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
    with refuses(ValueError, "Attention expects the observations of the episodes"):
        sample(stop(build(other)), num_timesteps=30)


def test_non_finite_observations_name_the_module(stop):
    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    algo = stop(build(prepare(PPOConfig(), observation_space=space)))
    runner = algo.env_runner
    sample(algo, num_timesteps=6)
    runner._cached_to_module[Columns.OBS][0] = float("nan")
    message = "Observations of the RLModule hold 2 non-finite values (NaN or infinity) of 6"
    with refuses(ValueError, message):
        sample(algo, num_timesteps=6)


@pytest.mark.parametrize("module_ids", [["p2"], []])
def test_unknown_modules(module_ids):
    config = PPOConfig().multi_agent(policies={"p0", "p1"})
    with refuses(ValueError, "one of ['p0', 'p1'], got " + str(module_ids)):
        use_attention(config, module_ids=module_ids)


def test_module_ids_as_a_string():
    config = PPOConfig().multi_agent(policies={"p0", "p1"})
    with refuses(TypeError, "`use_attention(config, module_ids=['p0'])`"):
        use_attention(config, module_ids="p0")


def test_one_call_for_each_module_keeps_both():
    config = PPOConfig().multi_agent(policies={"p0", "p1"})
    use_attention(config, module_ids=["p0"], window=5)
    use_attention(config, module_ids=["p1"], window=9)
    options = module_options(config)
    assert {mid: attention.window for mid, (attention, _) in options.items()} == {"p0": 5, "p1": 9}


def test_a_single_spec_stays_with_the_other_modules():
    config = PPOConfig().multi_agent(policies={"p0", "p1"})
    config.rl_module(rl_module_spec=RLModuleSpec(model_config={"fcnet_hiddens": [7]}))
    use_attention(config, module_ids=["p0"])
    specs = config._rl_module_spec.rl_module_specs
    assert {mid: s.model_config["fcnet_hiddens"] for mid, s in specs.items()} == {
        "p0": [7],
        "p1": [7],
    }
    assert "attention" not in specs["p1"].model_config
