"""Env runners and their episodes."""

import pickle

import numpy as np
import pytest
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
)
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.spaces.space_utils import BatchedNdArray

from tests.rllib_contract.pieces import Marker, episode, lstm, module, ppo_config


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


def test_a_remote_runner_that_raises_ends_its_process():
    config = ppo_config().fault_tolerance(delay_between_env_runner_restarts_s=0)
    runner = SingleAgentEnvRunner(config=config)
    try:
        with pytest.raises(SystemExit):
            runner.apply(lambda _: 1 / 0)
    finally:
        runner.stop()
    assert runner.ping() == "pong", (
        "These two are what Ray calls; new_stack/env_runner.py overrides both, so that the driver "
        "gets the error itself."
    )
