"""BC, MARWIL, CQL and IQL on recorded episodes: their true past, and whether they use it."""

from collections.abc import Iterator

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.offline.offline_env_runner import OfflineSingleAgentEnvRunner
from ray.rllib.offline.offline_prelearner import OfflinePreLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils import unflatten_dict

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.encoder.inputs import ChunkContext, unnested
from rllib_attention.new_stack.replay_buffers import OfflineChunkBuffer
from tests import memory_env
from tests.memory_env import DELAY, LENGTH, ExpertActions, RepeatPast, answer
from tests.streams import as_windows, read_windows

# Ray's workers do not have the tests' folder on their path.
ray.cloudpickle.register_pickle_by_value(memory_env)

ALL = {"BC": BCConfig, "MARWIL": MARWILConfig, "CQL": CQLConfig, "IQL": IQLConfig}
SEQUENCE = {key: ALL[key] for key in ("BC", "MARWIL")}
WINDOW = {key: ALL[key] for key in ("CQL", "IQL")}
ATTENTION = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=3, ffn_dim=16, max_seq_len=5)
NUM_EPISODES = 20
CONTEXT_LEN = ATTENTION.context_len


def offline_config(config_class: type, path: str = "/recorded", **data) -> AlgorithmConfig:
    data = {"input_read_episodes": True, "dataset_num_iters_per_learner": 5} | data
    config = config_class().environment(RepeatPast).offline_data(input_=[path], **data)
    config.rl_module(model_config={"fcnet_hiddens": [16]})
    if config_class is CQLConfig:
        config.training(lr=None)
    return config


# --- The past that reaches the encoder ---


def marked_episodes(lengths: list[int]) -> list[SingleAgentEpisode]:
    """Episodes whose observation at step t of episode e is 100 e + t."""
    return [
        SingleAgentEpisode(
            id_=str(e),
            observations=[np.float32([100 * e + t]) for t in range(length + 1)],
            actions=[np.float32([0.5])] * length,
            rewards=[1.0] * length,
            terminated=True,
            len_lookback_buffer=0,
        )
        for e, length in enumerate(lengths, start=1)
    ]


def prelearned(
    config: AlgorithmConfig, episodes: list[SingleAgentEpisode], num_batches: int
) -> Iterator[dict]:
    """Runs recorded episodes through RLlib's own offline pipeline."""
    spaces = (RepeatPast.observation_space, RepeatPast.action_space)
    config = config.copy(copy_frozen=False).environment(
        env=None, observation_space=spaces[0], action_space=spaces[1]
    )
    spec = config.get_multi_rl_module_spec(spaces={DEFAULT_MODULE_ID: spaces})
    prelearner = OfflinePreLearner(config=config, spaces=spaces, module_spec=spec)
    packed = [msgpack.packb(e.get_state(), default=msgpack_numpy.encode) for e in episodes]
    for _ in range(num_batches):
        # As RLlib does on the way to the learner: flat keys, and nested again.
        yield unflatten_dict(prelearner({"item": np.array(packed, dtype=object)}))


def prelearn(config: AlgorithmConfig, episodes: list[SingleAgentEpisode]) -> dict:
    return next(prelearned(config, episodes, 1))[DEFAULT_MODULE_ID]


def true_past(marks: np.ndarray, first: float, length: int) -> bool:
    """Whether marks are the `length` steps before step `first`, as far as the episode goes."""
    wanted = first - np.arange(length, 0, -1)
    known = wanted >= 100 * (first // 100)
    return np.array_equal(marks[known], wanted[known])


@pytest.mark.parametrize("name", SEQUENCE)
def test_chunks_have_their_true_context(name):
    config = offline_config(SEQUENCE[name]).training(train_batch_size_per_learner=60)
    use_attention(config, ATTENTION)
    batch = prelearn(config, marked_episodes([12, 7, 20]))
    obs, mask = batch[Columns.OBS][..., 0], batch[Columns.LOSS_MASK]
    state = ChunkContext.from_state(unnested(batch[Columns.STATE_IN]))
    assert obs.shape[1:] == (config.model_config["max_seq_len"],)
    assert len(np.unique(obs[:, 0])) > 3
    lengths = (state.context_length, state.chunk_length)
    for row, context, past, steps, loss in zip(
        obs, state.context[..., 0], *lengths, mask, strict=True
    ):
        assert past == min(row[0] % 100, CONTEXT_LEN)
        assert true_past(context, row[0], CONTEXT_LEN)
        assert steps >= loss.sum()
        np.testing.assert_array_equal(row[:steps], row[0] + np.arange(steps))


@pytest.mark.parametrize("max_seq_len", [1, 5])
@pytest.mark.parametrize("name", WINDOW)
def test_replayed_steps_are_the_true_past(name, max_seq_len):
    config = offline_config(WINDOW[name]).training(train_batch_size_per_learner=60)
    use_attention(config, ATTENTION, max_seq_len=max_seq_len)
    batch = prelearn(config, marked_episodes([12, 7, 20]))
    assert len({len(column) for column in batch.values()} | {60}) == 1
    obs, next_obs = (
        [steps[:, 0] for steps, _ in read_windows(batch[column], CONTEXT_LEN, (1,), 0)]
        for column in (Columns.OBS, Columns.NEXT_OBS)
    )
    now, after = (np.array([steps[-1] for steps in column]) for column in (obs, next_obs))
    assert len(np.unique(now)) > 10
    np.testing.assert_array_equal(after, now + 1)
    for steps in obs + next_obs:
        length = min(steps[-1] % 100, CONTEXT_LEN) + 1
        np.testing.assert_array_equal(steps, steps[-1] + np.arange(1 - length, 1))
    ends = np.isin(after, [112, 207, 320])
    np.testing.assert_array_equal(batch[Columns.TERMINATEDS], ends)
    # 12 slots of 5 are 12 runs or a few more.
    num_runs = 1 + (np.diff(now) != 1).sum()
    assert num_runs > 40 if max_seq_len == 1 else num_runs <= 24


@pytest.mark.parametrize("name", WINDOW)
def test_modules_compute_from_runs_what_they_compute_from_windows(name):
    """CQL repeats observations for each action that it samples."""
    config = offline_config(WINDOW[name]).training(train_batch_size_per_learner=60)
    use_attention(config, ATTENTION)
    [nested_batch] = prelearned(config, marked_episodes([12, 7, 20]), 1)
    batch = {k: torch.as_tensor(v) for k, v in nested_batch[DEFAULT_MODULE_ID].items()}
    learner = config.build_learner(env=RepeatPast())
    learner.build()
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    windows = batch | {
        column: as_windows(batch[column], CONTEXT_LEN) for column in (Columns.OBS, Columns.NEXT_OBS)
    }
    found = []
    for given in (batch, windows):
        torch.manual_seed(0)
        found.append(module.forward_train(given))
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-5, atol=1e-5)


def expert_episodes() -> list[SingleAgentEpisode]:
    """What `ExpertActions` without noise does."""
    env, episodes = RepeatPast(), []
    for seed in range(NUM_EPISODES):
        obs, _ = env.reset(seed=seed)
        episode, done = SingleAgentEpisode(observations=[obs]), False
        while not done:
            action = answer(episode.get_observations())
            obs, reward, done, _, _ = env.step(action)
            episode.add_env_step(obs, action, reward, terminated=done)
        episodes.append(episode)
    return episodes


# --- Training on what RLlib's own writer recorded ---


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> str:
    """Episodes of the expert; its noise lets Q-functions see what else there is."""
    path = tmp_path_factory.mktemp("recorded")
    config = (
        PPOConfig()
        .environment(RepeatPast)
        .env_runners(
            batch_mode="complete_episodes",
            module_to_env_connector=lambda env, spaces: ExpertActions(noise=0.2),
        )
        .offline_data(output=path.as_posix(), output_write_episodes=True)
    )
    # One file each: RLlib's writer makes as many blocks as episodes, up to 200.
    OfflineSingleAgentEnvRunner(config=config).sample(num_episodes=NUM_EPISODES)
    assert list(path.rglob("*.parquet"))
    return path.as_posix()


def build(config_class: type, path: str, stop, num_iters: int = 5) -> Algorithm:
    config = offline_config(
        config_class,
        path,
        input_read_batch_size=1,
        prelearner_buffer_kwargs={"capacity": 10_000},
        dataset_num_iters_per_learner=num_iters,
        # Two by default, which on two CPUs leaves none for what reads the files.
        map_batches_kwargs={"concurrency": 1},
    )
    config.training(train_batch_size_per_learner=64)
    if config_class is not CQLConfig:
        config.training(lr=3e-3)
    config.reporting(min_time_s_per_iteration=0)
    config.evaluation(evaluation_interval=1_000_000, evaluation_num_env_runners=0)
    use_attention(config, ATTENTION, dim=32, max_seq_len=16)
    return stop(config.build_algo())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_training_on_recorded_episodes(name, recorded, stop):
    algo = build(ALL[name], recorded, stop)
    for _ in range(2):
        results = algo.train()["learners"][DEFAULT_MODULE_ID]
        assert np.isfinite(results["total_loss"])
    assert algo.evaluate()["env_runners"]["num_episodes"] > 0


# --- Learning ---


def test_bc_learns_to_act_by_memory():
    # RLlib's own pipeline, learner and runner, without Ray Data between them.
    config = offline_config(BCConfig).training(train_batch_size_per_learner=32, lr=3e-3)
    use_attention(config, ATTENTION, num_layers=1, window=DELAY + 1, max_seq_len=16)
    learner = config.build_learner(env=RepeatPast())
    learner.build()
    runner = SingleAgentEnvRunner(config=config)
    losses = []
    for batch in prelearned(config, expert_episodes(), num_batches=120):
        batch = {key: SampleBatch(value) for key, value in batch.items()}
        results = learner.update(batch=MultiAgentBatch(batch, env_steps=1))
        losses.append(float(results[DEFAULT_MODULE_ID]["total_loss"].peek()))
    runner.set_state({"rl_module": learner.get_state()["rl_module"]})
    returns = [e.get_return() for e in runner.sample(num_episodes=5, explore=False)]
    # Without memory nothing is below the entropy of ±1 under a unit Gaussian, 1.42 …
    assert losses[0] > 1.0 > 0.9 > losses[-1]
    # … and no policy loses less than 1 in a step.
    assert np.mean(returns) > -0.5 * (LENGTH - DELAY)


def test_chunk_buffer_fills_a_batch():
    buffer = OfflineChunkBuffer(capacity=1000)
    buffer.add(marked_episodes([12, 7, 20]))
    chunks = buffer.sample(num_items=10, batch_length_T=5, n_step=1, sample_episodes=True)
    assert len(chunks) >= 10
    assert {len(chunk) for chunk in chunks} <= {1, 2, 3, 4, 5}
