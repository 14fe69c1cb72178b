"""Train batches."""

from types import SimpleNamespace

import numpy as np
import pytest
from ray.rllib.core.columns import Columns
from ray.rllib.offline.offline_prelearner import OfflinePreLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator

from tests.rllib_contract.pieces import ppo_config


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
