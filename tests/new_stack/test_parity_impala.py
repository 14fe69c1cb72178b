"""APPO and IMPALA: parity in mid-episode and after training, local and with remote runners."""

import time

import pytest
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig

from tests.harness import PARITY, build, mismatch, prepare, sample

# Like `test_learners.py`: learner threads outlive the algorithm.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("config_class", [APPOConfig, IMPALAConfig])
@pytest.mark.parametrize("num_env_runners", [0, 2])
def test_parity(stop, config_class, num_env_runners):
    config = prepare(config_class()).env_runners(
        num_env_runners=num_env_runners, rollout_fragment_length=23
    )
    config.learners(num_learners=0).reporting(min_time_s_per_iteration=0)
    config.training(train_batch_size_per_learner=69, lr=0.01)
    algo = stop(build(config, prev_actions=1, prev_rewards=1))
    for _ in range(3):
        algo.train()
    # The learner runs in a thread and the runners get weights when they may: once it has
    # worked off its queue, bring both sides to one state, in mid-episode.
    time.sleep(2)
    state = algo.learner_group._learner.module["default_policy"].get_state(inference_only=True)
    algo.env_runner_group.foreach_env_runner(lambda runner: runner.module.set_state(state))
    for _ in range(3):
        assert mismatch(algo, sample(algo)) < PARITY
