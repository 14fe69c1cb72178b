"""Minibatches, replay buffers, and what is left to Tune."""

import numpy as np
import pytest
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.new_stack.settings_checks import rounds_to_nothing, warn_of_dropout_in_kl
from tests.refusal import refuses


def rllib_fails(num_chunks: int, max_seq_len: int) -> bool:
    """Whether RLlib makes an empty minibatch of full chunks."""
    batch = SampleBatch(
        {"obs": np.zeros((num_chunks, max_seq_len)), "seq_lens": [max_seq_len] * num_chunks}
    )
    batch.zero_padded, batch._slice_seq_lens_in_B = False, True
    iterator = MiniBatchCyclicIterator(
        MultiAgentBatch({"p0": batch}, num_chunks * max_seq_len),
        minibatch_size=max_seq_len,
        shuffle_batch_per_epoch=False,
    )
    try:
        return "obs" not in next(iter(iterator)).policy_batches["p0"]
    except (KeyError, ValueError):
        return True


@pytest.mark.parametrize("max_seq_len", [1, 16, 64])
def test_rounding_is_rllibs(max_seq_len):
    numbers = range(1, 110)
    computed = [n for n in numbers if rounds_to_nothing(n, max_seq_len)]
    assert computed == [n for n in numbers if rllib_fails(n, max_seq_len)]
    assert computed


@pytest.mark.parametrize(
    ("train_batch_size", "minibatch_size", "smallest"), [(3000, 32, 64), (4000, 64, 65)]
)
def test_minibatch_smaller_than_a_chunk(train_batch_size, minibatch_size, smallest):
    """With 49 full chunks, RLlib rounds a minibatch of one chunk down to none."""
    config = PPOConfig().training(
        train_batch_size_per_learner=train_batch_size, minibatch_size=minibatch_size
    )
    message = (
        f"`minibatch_size` must be at least {smallest} with `max_seq_len` 64, since a minibatch is "
        f"made of whole chunks, got {minibatch_size}. Use "
        f"`config.training(minibatch_size={smallest})` or "
        f"`use_attention(config, max_seq_len={minibatch_size - 1})`."
    )
    with refuses(config, ValueError, message):
        use_attention(config, max_seq_len=64)
    use_attention(config.copy(), max_seq_len=minibatch_size - 1)
    use_attention(config.training(minibatch_size=smallest), max_seq_len=64)


def test_minibatch_of_one_step_has_one_way_out():
    config = PPOConfig().training(minibatch_size=1)
    with refuses(config, ValueError, "`config.training(minibatch_size=2)`."):
        use_attention(config, max_seq_len=1)


def test_agents_may_fill_any_number_of_chunks():
    config = PPOConfig().multi_agent(policies={"p0"})
    config.training(train_batch_size_per_learner=100, minibatch_size=64)
    with refuses(config, ValueError, "`config.training(minibatch_size=65)`"):
        use_attention(config, max_seq_len=64)


@pytest.mark.parametrize(("buffer", "agents"), [("", "multi"), ("MultiAgent", "single")])
def test_replay_buffer_of_the_other_kind(buffer, agents):
    config = DQNConfig().training(
        replay_buffer_config={"type": f"{buffer}EpisodeReplayBuffer", "capacity": 100}
    )
    if agents == "multi":
        config.multi_agent(policies={"p0"})
    with refuses(config, ValueError, f"cannot store the episodes of a {agents}-agent set-up"):
        use_attention(config)


def test_algorithms_that_read_files_have_no_replay_buffer_to_check():
    config = SACConfig().training(replay_buffer_config={"type": "ReplayBuffer"})
    with refuses(config, ValueError, "The replay buffer's `type` must be one of"):
        use_attention(config)
    use_attention(config.offline_data(input_=["/recorded"], input_read_episodes=True))


def test_algorithms_that_nobody_knows_get_single_transitions():
    class Own(AlgorithmConfig):
        def get_default_rl_module_spec(self):
            return DQNConfig().get_default_rl_module_spec()

    config = Own()
    message = "`max_seq_len` must be 1 for Own, which derives from no algorithm of RLlib that"
    with refuses(config, ValueError, message):
        use_attention(config, max_seq_len=4)
    assert use_attention(config).model_config["max_seq_len"] == 1


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
    ("config", "dropout", "warns"),
    [
        (APPOConfig().training(use_kl_loss=True), 0.2, True),
        (APPOConfig().training(use_kl_loss=True), 0.05, False),
        (APPOConfig().training(use_kl_loss=True), None, False),
        (APPOConfig(), 0.2, False),
        (PPOConfig(), 0.2, True),  # RLlib's own learner
        (use_attention(PPOConfig()), 0.2, False),
        (SACConfig(), 0.2, False),  # which has no such penalty
    ],
)
def test_dropout_that_the_kl_penalty_would_take_for_a_change(config, dropout, warns, caplog):
    caplog.set_level("WARNING", "rllib_attention")
    options = AttentionConfig(dropout=dropout)
    warn_of_dropout_in_kl(config, [options])
    assert [("use_kl_loss=False" in r.getMessage()) for r in caplog.records] == [True] * warns
