"""What this package assumes about RLlib, as tests of RLlib alone.

Nothing of the package is imported, so that these tests run with a Ray that the package refuses.
Where one fails, its message says what was assumed and where that is relied upon (below
`rllib_attention/`). Private names are listed in `compat/`.
"""

import copy
import pickle
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    BatchIndividualItems,
    NumpyToTensor,
)
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import (
    AddColumnsFromEpisodesToTrainBatch,
    AddNextObservationsFromEpisodesToTrainBatch,
    AddOneTsToEpisodesAndTruncate,
)
from ray.rllib.connectors.module_to_env import RemoveSingleTsTimeRankFromBatch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ACTOR, CRITIC, ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.models.catalog import MODEL_DEFAULTS, ModelCatalog
from ray.rllib.models.torch.fcnet import FullyConnectedNetwork
from ray.rllib.offline.offline_prelearner import OfflinePreLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch, concat_samples
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)
from ray.rllib.utils.spaces.space_utils import BatchedNdArray
from ray.tune.registry import RLLIB_MODEL, _global_registry, _Registry

OBS, ACTIONS = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)
BUFFERS = [
    EpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
]


class Marker(ConnectorV2):
    """A user's piece that does nothing."""

    def __call__(self, *, batch, **kwargs):
        return batch


class ZeroEnv(gym.Env):
    """Zeros for ever."""

    def __init__(self, config=None):
        self.observation_space, self.action_space = OBS, ACTIONS

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, False, {}


def ppo_config(**model_config) -> PPOConfig:
    config = PPOConfig().environment(ZeroEnv)
    config.env_runners(num_env_runners=0, rollout_fragment_length=4)
    return config.rl_module(model_config={"fcnet_hiddens": [4], "max_seq_len": 4, **model_config})


def module(inference_only=False, **model_config):
    config = ppo_config(**model_config)
    spaces = {DEFAULT_MODULE_ID: (OBS, ACTIONS)}
    return config.get_rl_module_spec(spaces=spaces, inference_only=inference_only).build()


def lstm(**model_config):
    return module(use_lstm=True, lstm_cell_size=4, **model_config)


def episode(num_steps=6, *, lookback=0, first=0, id_=None, done=True) -> SingleAgentEpisode:
    """Return an episode in which the observation is the time step."""
    steps = list(range(first, first + num_steps + lookback))
    return SingleAgentEpisode(
        id_=id_,
        observations=[np.full(3, t, np.float32) for t in [*steps, first + num_steps + lookback]],
        observation_space=OBS,
        actions=[0 for _ in steps],
        action_space=ACTIONS,
        rewards=[float(t) for t in steps],
        terminated=done,
        len_lookback_buffer=lookback,
        t_started=first + lookback,
    )


def names(pieces) -> list[str]:
    return [type(piece).__name__ for piece in pieces]


# Pipelines: the order of pieces, and when they have nothing to do


def test_order_of_the_env_to_module_pipeline():
    config = ppo_config().env_runners(
        env_to_module_connector=lambda env, spaces, device: [Marker(), Marker()]
    )
    runner = SingleAgentEnvRunner(config=config)
    assert names(runner._env_to_module.connectors) == [
        *("Marker", "Marker"),
        "AddObservationsFromEpisodesToBatch",
        "AddTimeDimToBatchAndZeroPad",
        "AddStatesFromEpisodesToBatch",
        "BatchIndividualItems",
        "NumpyToTensor",
    ], "User pieces run first, then these defaults: new_stack/connectors/rollout.py adds STATE_IN."


def test_order_of_the_learner_pipeline_and_its_spaces():
    given = []

    def factory(observation_space, action_space):
        given.append((observation_space, action_space))
        return [Marker()]

    config = ppo_config().learners(learner_connector=factory)
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)})
    assert names(learner._learner_connector.connectors) == [
        "AddOneTsToEpisodesAndTruncate",
        "Marker",
        "AddObservationsFromEpisodesToBatch",
        "AddColumnsFromEpisodesToTrainBatch",
        "AddTimeDimToBatchAndZeroPad",
        "AddStatesFromEpisodesToBatch",
        "BatchIndividualItems",
        "NumpyToTensor",
        "GeneralAdvantageEstimation",
    ], "new_stack/connectors/chunks.py runs the defaults from AddObservations to AddTimeDim itself."
    assert given == [(None, None)], (
        "Learners build connectors without spaces: our pieces take shapes from data and module."
    )


@pytest.mark.parametrize(
    ("piece", "column"),
    [
        (AddObservationsFromEpisodesToBatch(as_learner_connector=True), Columns.OBS),
        (AddNextObservationsFromEpisodesToTrainBatch(), Columns.NEXT_OBS),
        (AddTimeDimToBatchAndZeroPad(as_learner_connector=True), Columns.STATE_IN),
        (AddStatesFromEpisodesToBatch(as_learner_connector=True), Columns.STATE_IN),
        (AddTimeDimToBatchAndZeroPad(), Columns.STATE_IN),
        (AddStatesFromEpisodesToBatch(), Columns.STATE_IN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ConnectorV2) else value,
)
def test_pieces_leave_a_batch_alone_that_has_their_column(piece, column):
    given = {column: {("id",): ["mine"]}, "other": {("id",): [1, 2, 3]}}
    shared_data = {}
    batch = piece(
        rl_module=lstm(),
        batch=copy.deepcopy(given),
        episodes=[episode()],
        shared_data=shared_data,
    )
    assert batch == given, f"{type(piece).__name__} returns early where {column} is there."
    assert not shared_data, "Nothing is announced: rows without a time dimension stay as they are."


def test_observations_of_a_train_batch_get_episode_ids_of_their_own():
    episodes = [episode(id_="a"), episode(id_="a")]
    piece = AddObservationsFromEpisodesToBatch(as_learner_connector=True)
    piece(rl_module=None, batch={}, episodes=episodes)
    assert [e.id_ for e in episodes] == ["a_0", "a_1"], (
        "Fragments of one episode are told apart by the piece that adds observations: ours run it."
    )


def test_chunks_are_padded_and_masked_per_episode():
    episodes = [episode(6, id_="a")]
    batch, shared_data = {}, {}
    for piece in (
        AddObservationsFromEpisodesToBatch(as_learner_connector=True),
        AddColumnsFromEpisodesToTrainBatch(),
        AddTimeDimToBatchAndZeroPad(as_learner_connector=True),
    ):
        batch = piece(rl_module=lstm(), batch=batch, episodes=episodes, shared_data=shared_data)
    [obs], [mask] = batch[Columns.OBS].values(), batch[Columns.LOSS_MASK].values()
    assert np.shape(obs) == (2, 4, 3), "Steps are cut from the fragment's first on, ceil(6 / 4)."
    assert np.array(mask).tolist() == [[True] * 4, [True] * 2 + [False] * 2]
    assert not np.array(obs)[1, 2:].any(), "Padding is zeros at the end."


def test_ready_made_rows_pass_the_batching_piece():
    rows = np.arange(6).reshape(2, 3).view(BatchedNdArray)
    batch = {Columns.OBS: {("a",): [np.zeros(3)], ("b",): [np.zeros(3)]}, Columns.STATE_IN: [rows]}
    batch = BatchIndividualItems()(rl_module=module(), batch=batch, episodes=[], shared_data={})
    assert np.array_equal(batch[Columns.STATE_IN], rows), "AddRolloutContext hands one batch over."


def test_single_steps_get_a_time_dimension_that_is_announced_and_removed():
    shared_data, running = {}, episode(0, done=False)
    batch = {Columns.OBS: {(running.id_,): [np.zeros(3)]}}
    batch = AddTimeDimToBatchAndZeroPad()(
        rl_module=lstm(), batch=batch, episodes=[running], shared_data=shared_data
    )
    assert shared_data == {"_added_single_ts_time_rank": True}, (
        "Beside RNN modules our env-to-module piece runs AddTimeDim, so that this is announced."
    )
    out = RemoveSingleTsTimeRankFromBatch()(
        rl_module=lstm(),
        batch={Columns.ACTIONS: {(running.id_,): [np.zeros((1, 2))]}},
        episodes=[running],
        shared_data=shared_data,
    )
    assert next(iter(out[Columns.ACTIONS].values()))[0].shape == (2,)


def test_the_artificial_step_is_masked_and_follows_the_last():
    fragment = episode(3, done=False).to_numpy()
    batch = AddOneTsToEpisodesAndTruncate()(
        rl_module=None, batch={}, episodes=[fragment], shared_data={}
    )
    assert len(fragment) == 4
    [mask] = batch[Columns.LOSS_MASK].values()
    assert list(mask) == [True, True, True, False], (
        "V-trace and GAE take the value of this step as bootstrap: vtrace_bootstrap.py."
    )


# Runners and episodes


def test_a_fragments_first_action_comes_from_a_batch_built_before_the_weight_sync():
    events = []

    class Note(Marker):
        def __call__(self, *, batch, **kwargs):
            events.append("batch")
            return batch

    config = ppo_config().env_runners(
        env_to_module_connector=lambda env, spaces, device: Note(), num_envs_per_env_runner=1
    )
    runner = SingleAgentEnvRunner(config=config)
    runner.module.encoder.register_forward_pre_hook(lambda *args: events.append("forward"))
    runner.sample(num_timesteps=3)
    events.clear()
    runner.sample(num_timesteps=1)
    assert events == ["forward", "batch"], (
        "encoder/rollout_cache.py checks the weights in the forward pass, since the batch may be "
        "older than they are; and it expects one batch for each forward pass."
    )


def test_a_fragment_carries_its_lookback():
    whole = episode(6, done=False)
    rest = whole.cut(len_lookback_buffer=4)
    assert (len(rest), rest.t_started, rest.observations.lookback) == (0, 6, 4)
    before = rest.get_observations(slice(-4, 1), neg_index_as_lookback=True)
    assert [int(obs[0]) for obs in before] == [2, 3, 4, 5, 6]
    rest.add_env_step(np.full(3, 7, np.float32), 0, 0.0)
    again = rest.cut(len_lookback_buffer=4)
    assert again.observations.lookback == 4, "Lookbacks add up over short fragments."


def test_a_fragment_carries_custom_data():
    whole = episode(3, done=False)
    whole.custom_data["mine"] = 1
    assert whole.cut().custom_data == {"mine": 1}, "step_inputs.py carries contexts there."
    assert "mine" in pickle.loads(pickle.dumps(whole)).custom_data


def test_modules_without_state_out_store_none_in_episodes():
    class AddState(Marker):
        def __call__(self, *, batch, episodes, **kwargs):
            batch[Columns.STATE_IN] = [np.zeros((len(episodes), 0)).view(BatchedNdArray)]
            return batch

    config = ppo_config().env_runners(
        env_to_module_connector=lambda env, spaces, device: [
            AddObservationsFromEpisodesToBatch(),
            AddState(),
        ]
    )
    runner = SingleAgentEnvRunner(config=config)
    runner.module.get_initial_state = lambda: {"anything": np.zeros(1)}
    assert runner.module.is_stateful(), "A module is stateful if it has an initial state."
    [fragment] = runner.sample(num_timesteps=4)
    columns = set(fragment.extra_model_outputs)
    assert not columns & {Columns.STATE_OUT, Columns.STATE_IN}, "No state travels in episodes."
    assert columns == {"action_dist_inputs", "action_logp", "weights_seq_no"}


def test_runners_build_modules_without_a_critic_unless_they_are_recurrent():
    assert lstm(inference_only=True).encoder.critic_encoder is not None
    assert module(inference_only=True).encoder.critic_encoder is None, (
        "AttentionEncoderConfig is no RecurrentEncoderConfig, so runners get no critic."
    )


# RLModules and catalogs


def test_catalogs_make_encoder_configs_by_a_class_method_with_keywords():
    calls = []

    class Catalog(PPOCatalog):
        @classmethod
        def _get_encoder_config(cls, **kwargs):
            calls.append(kwargs)
            return super()._get_encoder_config(**kwargs)

    catalog = Catalog(OBS, ACTIONS, {"max_seq_len": 7})
    assert set(calls[0]) == {"observation_space", "model_config_dict", "action_space"}, (
        "encoder/catalog.py overrides this hook with these keywords."
    )
    assert catalog._model_config_dict["max_seq_len"] == 7
    assert "fcnet_hiddens" in catalog._model_config_dict, "with RLlib's defaults"


def test_values_of_a_separate_critic_are_computed_from_its_part_of_the_state():
    built, seen = lstm(vf_share_layers=False), []
    assert set(built.get_initial_state()) == {ACTOR, CRITIC}, "The encoder decides on the state."
    built.encoder.critic_encoder.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    critic = {key: value.unsqueeze(0) for key, value in built.get_initial_state()[CRITIC].items()}
    state = {ACTOR: None, CRITIC: critic}
    batch = {Columns.OBS: torch.zeros(1, 2, 3), Columns.STATE_IN: state}
    assert built.compute_values(batch).shape == (1, 2)
    assert seen[0][Columns.STATE_IN] is critic, "encoder/actor_critic.py nests below CRITIC."


def test_values_take_embeddings_where_a_training_pass_has_made_them():
    built = module(vf_share_layers=False)
    batch = {Columns.OBS: torch.zeros(2, 3)}
    out = built.forward_train(batch)
    assert torch.equal(
        built.compute_values(batch, embeddings=out[Columns.EMBEDDINGS]), built.compute_values(batch)
    )


def test_passes_switch_between_training_and_evaluation():
    built = module()
    batch = {Columns.OBS: torch.zeros(2, 3)}
    built.eval()
    built.forward_train(batch)
    assert built.training, "TorchRLModule.forward_train calls train()."
    modes = []
    built.encoder.register_forward_pre_hook(lambda *args: modes.append(built.training))
    built.forward_inference(batch)
    built.forward_exploration(batch)
    assert modes == [False, False]
    assert built.training, "and these restore the mode they found"


def test_targets_are_deep_copies_without_gradients():
    target = make_target_network(torch.nn.Linear(2, 2))
    assert not target.weight.requires_grad
    made = []

    class Net(torch.nn.Linear):
        def __deepcopy__(self, memo):
            made.append(self)
            return torch.nn.Linear(2, 2)

    net = Net(2, 2)
    make_target_network(net)
    assert made == [net], "made by copy.deepcopy: encoder/encoder.py tells copies by it"


def test_nested_distributions_show_their_parts_and_can_be_subclassed():
    space = gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": OBS})
    partial = PPOCatalog(OBS, space, {}).get_action_dist_cls("torch")
    own = type("Own", (partial,), {})
    distribution = own.from_logits(torch.zeros(1, 8))
    assert type(distribution) is own, "encoder/policy_outputs.py derives a class of its own"
    parts = names(distribution._flat_child_distributions)
    assert parts == ["TorchCategorical", "TorchDiagGaussian"]


def test_distributions_still_take_a_chunk_of_one_step_for_a_component():
    space = gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": OBS})
    partial = PPOCatalog(OBS, space, {}).get_action_dist_cls("torch")
    distribution = partial.from_logits(torch.zeros(5, 1, 8))
    actions = {"a": torch.zeros(5, 1, dtype=torch.long), "b": torch.zeros(5, 1, 3)}
    shape = distribution.logp(actions).shape
    assert shape != (5, 1), "RLlib is right now: policy_outputs.TimeRankMultiDistribution can go"


def test_encoders_return_actor_and_critic():
    out = module().encoder({Columns.OBS: torch.zeros(2, 3)})[ENCODER_OUT]
    assert set(out) == {ACTOR, CRITIC}


# Configs


@pytest.mark.parametrize("config_class", [PPOConfig, IMPALAConfig, DQNConfig, SACConfig])
def test_what_the_user_sets_is_kept_apart_from_the_algorithms_own(config_class):
    config = config_class()
    assert config._rl_module_spec is None
    assert config._model_config == {}
    assert config._env_to_module_connector is None
    assert config._learner_connector is None
    assert config._is_frozen is False
    spec = RLModuleSpec(model_config={"a": 1})
    config.rl_module(rl_module_spec=spec, model_config={"b": 2})
    config.env_runners(env_to_module_connector=Marker).learners(learner_connector=Marker)
    assert config._rl_module_spec is spec
    assert config._model_config == {"b": 2}
    assert config._env_to_module_connector is config._learner_connector is Marker
    assert config.model_config["b"] == 2


def _callback(**kwargs):
    """A callback that can be pickled."""


def test_a_config_survives_what_tune_and_checkpoints_do_to_it():
    config = ppo_config(mine={"window": 3}).env_runners(
        env_to_module_connector=Marker, episode_lookback_horizon=11
    )
    config.learners(learner_connector=Marker).callbacks(on_algorithm_init=[_callback])
    config.rl_module(rl_module_spec=RLModuleSpec(catalog_class=PPOCatalog))
    by_tune = PPOConfig().update_from_dict(copy.deepcopy(config.to_dict()))
    by_checkpoint = PPOConfig.from_state(pickle.loads(pickle.dumps(config.get_state())))
    for restored in (by_tune, by_checkpoint):
        assert restored.model_config["mine"] == {"window": 3}
        assert restored.episode_lookback_horizon == 11
        assert restored._env_to_module_connector is restored._learner_connector is Marker
        assert restored.callbacks_on_algorithm_init == [_callback]
        assert restored._rl_module_spec.catalog_class is PPOCatalog


def test_a_modules_own_model_config_comes_before_that_of_all():
    config = ppo_config(a=1, b=1)
    config.rl_module(rl_module_spec=RLModuleSpec(model_config={"b": 2}))
    spec = config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)})
    assert (spec.model_config["a"], spec.model_config["b"]) == (1, 2)


@pytest.mark.parametrize("config_class", [DQNConfig, SACConfig])
@pytest.mark.parametrize("buffer", BUFFERS, ids=lambda cls: cls.__name__)
def test_replay_buffers_are_accepted_by_their_names(config_class, buffer):
    settings = {"capacity": 100, "alpha": 0.6, "beta": 0.4}
    env = "CartPole-v1" if config_class is DQNConfig else "Pendulum-v1"
    config = config_class().environment(env)
    config.training(replay_buffer_config={"type": buffer.__name__, **settings})
    config.validate()
    config.training(replay_buffer_config={"type": buffer, **settings})
    if config_class is SACConfig:
        with pytest.raises(ValueError, match="must be of type"):
            config.validate()


def test_callbacks_on_init_find_the_replay_buffer(stop):
    found = []
    config = DQNConfig().environment("CartPole-v1")
    config.callbacks(on_algorithm_init=lambda algorithm, **kwargs: found.append(algorithm))
    algorithm = stop(config.build_algo())
    assert found == [algorithm]
    assert type(algorithm.local_replay_buffer) is PrioritizedEpisodeReplayBuffer, (
        "new_stack/algorithm_init.py upgrades the built buffer, since a class is not accepted."
    )


# Train batches


@pytest.mark.parametrize("num_chunks", [1, 2, 48, 49, 50, 98])
def test_minibatches_are_whole_chunks_rounded_down(num_chunks):
    size = 4
    batch = SampleBatch(obs=np.zeros((num_chunks, size)), seq_lens=np.full(num_chunks, size))
    batch._slice_seq_lens_in_B = True  # as RLlib sets it for zero-padded batches
    minibatches = MiniBatchCyclicIterator(
        MultiAgentBatch({"module": batch}, num_chunks * size),
        num_epochs=1,
        minibatch_size=size,
        shuffle_batch_per_epoch=False,
    )
    rows = len(next(iter(minibatches))["module"].get(Columns.OBS, ()))
    assert rows == int(num_chunks * (size / (num_chunks * size)))
    assert (rows == 0) is (num_chunks in (49, 98)), (
        "A minibatch of one chunk's steps may be none: new_stack/settings_checks.py computes it."
    )


def test_offline_chunks_are_as_long_as_the_configs_own_max_seq_len():
    asked = []
    prelearner = SimpleNamespace(
        config=ppo_config(max_seq_len=9),
        _module=SimpleNamespace(is_stateful=lambda: True),
        _validate_episodes=lambda episodes: episodes,
        episode_buffer=SimpleNamespace(
            add=lambda episodes: None, sample=lambda **kwargs: asked.append(kwargs)
        ),
    )
    OfflinePreLearner._postprocess_and_sample(prelearner, [])
    assert asked[0]["batch_length_T"] == 9, (
        "max_seq_len must be in config.rl_module(model_config=...): that of a spec is not read."
    )
    assert asked[0]["lookback"] == prelearner.config.episode_lookback_horizon


# Replay buffers


@pytest.mark.parametrize("buffer_class", BUFFERS[:2], ids=lambda cls: cls.__name__)
def test_indices_are_in_order_of_arrival_and_lose_what_is_evicted(buffer_class):
    buffer = buffer_class(capacity=8)
    for first in (0, 100, 200):
        buffer.add(episode(4, first=first, id_=str(first)))
    found = [tuple(index[:2]) for index in buffer._indices]
    assert found == [(number, step) for number in (1, 2) for step in range(4)], (
        "replay_buffers/priorities.py follows additions at the end and evictions at the start; "
        "episodes count from the first ever stored, steps from the start of what is stored."
    )


def test_multi_agent_indices_are_kept_for_each_module():
    buffer = MultiAgentPrioritizedEpisodeReplayBuffer(capacity=20)
    buffer.add(
        MultiAgentEpisode(
            observations=[{"a": 0, "b": 5}, {"a": 1}, {"a": 2, "b": 6}],
            actions=[{"a": 0, "b": 0}, {"a": 0}],
            rewards=[{"a": 0.0, "b": 0.0}, {"a": 0.0}],
            terminateds={"__all__": True, "a": True, "b": True},
            agent_module_ids={"a": "m", "b": "n"},
            len_lookback_buffer=0,
        )
    )
    found = {
        key: [index[:3] for index in value] for key, value in buffer._module_to_indices.items()
    }
    assert found == {"m": [(0, "a", 0), (0, "a", 1)], "n": [(0, "b", 0)]}
    assert set(buffer.get_module_ids()) == {"m", "n"}
    for module_id, indices in found.items():
        positions = buffer._module_to_tree_idx_to_sample_idx[module_id]
        assert [positions[index[-1]] for index in indices] == list(range(len(indices)))
        assert buffer._module_to_sum_segment[module_id].sum() > 0
        assert buffer._module_to_min_segment[module_id].min() > 0
    assert not buffer._module_to_last_sampled_indices["m"]


def test_priorities_are_leaves_of_trees_and_updated_for_the_last_sample():
    buffer = PrioritizedEpisodeReplayBuffer(capacity=8, alpha=0.5)
    buffer.add(episode(4, id_="a"))
    leaves = [index[-1] for index in buffer._indices]
    assert [buffer._tree_idx_to_sample_idx[leaf] for leaf in leaves] == [0, 1, 2, 3]
    buffer._last_sampled_indices = [leaves[2], leaves[0]]
    buffer.update_priorities(np.array([4.0, 9.0]))
    sums, lowest = buffer._sum_segment, buffer._min_segment
    assert [sums.value[sums.capacity + leaf] for leaf in leaves] == [3.0, 1.0, 2.0, 1.0], (
        "Priorities come in the order of `_last_sampled_indices`; leaves hold them to the power α."
    )
    assert (sums.sum(), lowest.min()) == (7.0, 1.0)
    assert sums.find_prefixsum_idx(
        0.5 + sum(sums.value[sums.capacity + i] for i in range(leaves[2]))
    )
    assert not buffer._last_sampled_indices, "An update is for one sample."


def test_sequences_are_chunks_with_their_lookback_each_counted_one_step_longer():
    buffer = EpisodeReplayBuffer(capacity=100)
    buffer.add(episode(40, id_="a"))
    sampled = buffer.sample(
        num_items=5 * (3 + 1), batch_length_T=3, n_step=1, sample_episodes=True, lookback=2
    )
    assert len(sampled) >= 5, "replay_buffers/offline.py asks for T + 1 items for each chunk."
    for chunk in sampled:
        first = int(chunk.get_observations(0)[0])
        assert chunk.t_started == first
        assert chunk.observations.lookback == min(2, first), "Chunks bring their past along."


def test_counts_of_a_sample_are_logged_by_these_arguments():
    counts = {"num_env_steps_sampled": 4, "num_episodes_per_sample": 1}
    counts |= {"num_env_steps_per_sample": 4, "sampled_n_step": 1.0, "num_resamples": 0}
    kinds = ("num_steps_sampled", "num_episodes_per_sample", "num_steps_per_sample")
    by_kind = {
        f"{who}_to_{kind}": {}
        for who in ("agent", "module")
        for kind in (*kinds, "sampled_n_step", "num_resamples")
    }
    EpisodeReplayBuffer(capacity=4)._update_sample_metrics(**counts, **by_kind)


@pytest.mark.parametrize("buffer_class", BUFFERS[:2], ids=lambda cls: cls.__name__)
def test_the_oldest_episodes_are_evicted_when_steps_exceed_the_capacity(buffer_class):
    buffer = buffer_class(capacity=8)
    for first in (0, 100, 200):
        buffer.add(episode(4, first=first, id_=str(first)))
    assert (buffer._num_timesteps, buffer._num_episodes_evicted) == (8, 1)
    assert buffer.get_num_episodes_evicted() == 1
    assert [stored.id_ for stored in buffer.episodes] == ["100", "200"]
    assert buffer.episodes[buffer.episode_id_to_index["200"] - 1].id_ == "200"


@pytest.mark.parametrize("buffer_class", BUFFERS[:2], ids=lambda cls: cls.__name__)
def test_fragments_join_their_episode_without_their_lookback(buffer_class):
    buffer = buffer_class(capacity=100)
    running = episode(3, id_="a", done=False)
    buffer.add(running)
    rest = running.cut(len_lookback_buffer=2)
    rest.add_env_step(np.full(3, 4, np.float32), 0, 0.0)
    buffer.add(rest)
    [stored] = buffer.episodes
    assert (len(stored), stored.observations.lookback) == (4, 0)
    assert [int(obs[0]) for obs in stored.get_observations()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("buffer_class", BUFFERS, ids=lambda cls: cls.__name__)
def test_a_built_buffer_can_change_its_class(buffer_class):
    mixin = type("Mixin", (), {"__slots__": ()})
    own = type("Own", (mixin, buffer_class), {})
    buffer = buffer_class(capacity=10)
    buffer.__class__ = own  # TypeError if RLlib's classes had slots
    assert isinstance(buffer, own)


# Old API stack


def test_the_registry_holds_models_by_name_and_is_filled_after_each_init():
    _global_registry.register(RLLIB_MODEL, "contract", _callback)
    assert _global_registry.get(RLLIB_MODEL, "contract") is _callback
    _Registry().register(RLLIB_MODEL, "contract", _callback)
    _global_registry.unregister(RLLIB_MODEL, "contract")
    assert _global_registry.flush_values in ray._private.worker._post_init_hooks


def test_a_custom_model_may_be_a_class_and_gets_the_policys_own_dict():
    seen = []

    class Model(FullyConnectedNetwork):
        def __init__(self, obs_space, action_space, num_outputs, model_config, name, **options):
            seen.append((model_config, options))
            super().__init__(obs_space, action_space, num_outputs, model_config, name)

    config = {**MODEL_DEFAULTS, "custom_model": Model, "custom_model_config": {"mine": 1}}
    ModelCatalog.get_model_v2(OBS, ACTIONS, 2, config, framework="torch")
    assert seen[0][0] is config, "The model may write its class into the policy's own dict."
    assert seen[0][1] == {"mine": 1}, "Options arrive as keyword arguments."


def test_the_class_of_a_custom_model_survives_dict_configs():
    config = PPOConfig().training(model={"custom_model": FullyConnectedNetwork})
    restored = PPOConfig().update_from_dict(copy.deepcopy(config.to_dict()))
    assert restored.model["custom_model"] is FullyConnectedNetwork


@pytest.mark.parametrize("spec", [None, "multi"])
def test_torch_compile_learner_compiles_no_module(monkeypatch, spec):
    compiled = []
    monkeypatch.setattr(TorchRLModule, "compile", lambda self, config: compiled.append(self))
    config = PPOConfig().framework(torch_compile_learner=True)
    if spec == "multi":
        config.multi_agent(policies={"a", "b"})
    spaces = dict.fromkeys(("__env__", "a", "b", "default_policy"), (OBS, ACTIONS))
    learner = config.build_learner(spaces=spaces)
    learner.build()
    assert compiled == [], (
        "`TorchLearner.build` asks of the MultiRLModule whether it is a TorchRLModule, so that no "
        "module is ever compiled; new_stack/learner.py compiles encoders. If that is mended, RLlib "
        "would trace the host's layouts in `forward_train`, too."
    )


def test_arrays_of_objects_stay_on_the_host():
    """new_stack/connectors: lengths and tags are such arrays, as layouts need them."""
    lengths = np.array([3, 4]).astype(object)
    batch = {Columns.STATE_IN: {"lengths": lengths, "context": np.zeros((2, 3), np.float32)}}
    module = (
        PPOConfig().get_multi_rl_module_spec(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)}).build()
    )
    out = NumpyToTensor()(rl_module=module, batch={"default_policy": batch}, episodes=[])
    state = out["default_policy"][Columns.STATE_IN]
    assert torch.is_tensor(state["context"])
    np.testing.assert_array_equal(state["lengths"], lengths)
    minibatch = SampleBatch({**out["default_policy"], Columns.OBS: torch.zeros(2, 1)})
    joined = concat_samples([minibatch[1:2], minibatch[0:1]])
    assert joined[Columns.STATE_IN]["lengths"].tolist() == [4, 3]


def test_a_learner_takes_each_minibatch_through_its_update():
    """new_stack/learner.py ties tags to observations there; it is an extension point."""
    config = PPOConfig()
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (OBS, ACTIONS)})
    learner.build()
    seen = []
    learner._update = lambda batch: (seen.append(batch), {}, {})
    learner._log_metrics = learner._log_steps_trained_metrics = lambda *args, **kwargs: None
    rows = SampleBatch({Columns.OBS: torch.zeros(4, 2), Columns.REWARDS: torch.zeros(4)})
    batch = MultiAgentBatch({"default_policy": rows}, 4)
    learner.update(batch=batch, timesteps={"num_env_steps_sampled_lifetime": 0})
    assert [list(batches) for batches in seen] == [["default_policy"]]
