"""APPO's and IMPALA's settings that V-trace cannot work with."""

import pytest
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import use_attention
from tests.refusal import refuses

both = pytest.mark.parametrize("config_class", [APPOConfig, IMPALAConfig])


@both
def test_a_chunk_that_cuts_fragments_between_minibatches_is_refused(config_class):
    config = config_class().training(minibatch_size=100)
    message = "`max_seq_len` must be at least 51, one fragment and its bootstrap step, when V-trace"
    with refuses(config, ValueError, message):
        use_attention(config, max_seq_len=20)
    use_attention(config)


@both
def test_a_chunk_that_cuts_fragments_restarts_v_trace_and_says_so(config_class, caplog):
    with caplog.at_level("WARNING"):
        use_attention(config_class().training(num_epochs=1), max_seq_len=20)
    assert "V-trace restarts every 20 steps" in caplog.text
    assert "Use `use_attention(config, max_seq_len=51)`" in caplog.text


def test_algorithms_without_v_trace_may_cut_fragments(caplog):
    config = PPOConfig().env_runners(rollout_fragment_length=50)
    use_attention(config.training(minibatch_size=100), max_seq_len=20)
    assert "V-trace" not in caplog.text


@both
def test_shuffling_what_aggregator_actors_build_is_refused(config_class):
    config = config_class().training(shuffle_batch_per_epoch=True, num_epochs=2)
    config.learners(num_aggregator_actors_per_learner=1)
    with refuses(config, ValueError, "RLlib cannot shuffle the chunks"):
        use_attention(config)
    use_attention(config.training(shuffle_batch_per_epoch=False))
