"""What is promised when something breaks; `docs/faults.md` is the same list in words."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm

from tests.harness import PARITY, RandomEnv, build, mismatch, sample
from tests.new_stack.test_life import SMALL, ppo

pytestmark = pytest.mark.slow


class HangingEnv(RandomEnv):
    """Its 100th step takes a minute."""

    steps = 0

    def step(self, action):
        HangingEnv.steps += 1
        if HangingEnv.steps == 100:
            time.sleep(60)
        return super().step(action)


class SpoiltEnv(RandomEnv):
    """From the 50th step on its observations are not what its space says.

    Args:
        config: `spoil`, what an observation is replaced by; else as for `RandomEnv`.
    """

    steps = 0

    def __init__(self, config):
        super().__init__(config)
        self._spoilt = config["spoil"]

    def step(self, action):
        SpoiltEnv.steps += 1
        observation, *rest = super().step(action)
        return (self._spoilt if SpoiltEnv.steps >= 50 else observation, *rest)


def remote(config, num=2):
    config.env_runners(num_env_runners=num, rollout_fragment_length=19)
    return config.fault_tolerance(restart_failed_env_runners=True)


def train(algo, iterations=3):
    for _ in range(iterations):
        algo.train()


def weights(algo):
    return algo.get_weights()["default_policy"]


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left)


@pytest.fixture
def saved(stop, tmp_path):
    """An algorithm after one iteration, and its checkpoint."""
    algo = stop(build(ppo()))
    algo.train()
    return algo, Path(algo.save_to_path(str(tmp_path / "checkpoint")))


def test_a_killed_learner_ends_training_and_the_checkpoint_goes_on(stop, tmp_path):
    algo = build(ppo().learners(num_learners=1))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    kept = weights(algo)
    [pid] = [found.get() for found in algo.learner_group.foreach_learner(lambda _: os.getpid())]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RayError):
        train(algo)
    algo.stop()
    restored = stop(Algorithm.from_checkpoint(path))
    assert same(weights(restored), kept)
    assert np.isfinite(restored.train()["learners"]["default_policy"]["total_loss"])


def test_an_environment_that_hangs_holds_up_no_other_runner(stop):
    config = remote(build_config(HangingEnv)).env_runners(sample_timeout_s=5)
    algo = stop(build(config))
    results = [algo.train() for _ in range(4)]
    assert results[-1]["num_env_steps_sampled_lifetime"] > 111
    assert mismatch(algo, sample(algo)) < PARITY


def build_config(env, **env_config):
    return ppo(env, lengths=(20, 60), **env_config)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (np.full(3, np.nan, np.float32), "not finite|non-finite|NaN"),
        (np.zeros(4, np.float32), "shape|broadcast|size"),
    ],
)
@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_observations_that_are_none_reach_the_driver(stop, spoilt, said, num_env_runners):
    SpoiltEnv.steps = 0
    config = build_config(SpoiltEnv, spoil=spoilt).env_runners(num_env_runners=num_env_runners)
    config.fault_tolerance(restart_failed_env_runners=False)
    algo = stop(build(config))
    with pytest.raises(Exception, match=said):
        train(algo)


def test_a_checkpoint_that_cannot_be_written_costs_nothing(saved, tmp_path):
    algo, _ = saved
    kept = weights(algo)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        algo.save_to_path(str(tmp_path / "file" / "checkpoint"))
    assert same(weights(algo), kept)
    algo.train()
    assert mismatch(algo, sample(algo)) < PARITY


@pytest.mark.parametrize("broken", ["truncated", "missing"])
def test_a_broken_checkpoint_is_refused(saved, broken):
    algo, path = saved
    [file] = (path / "learner_group" / "learner" / "rl_module").rglob(
        "default_policy/module_state*"
    )
    if broken == "missing":  # as after a save that was cut short
        shutil.rmtree(path / "learner_group")
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Exception):  # noqa: B017, PT011  (RLlib's own, of many kinds)
        Algorithm.from_checkpoint(str(path))
    algo.train()


@pytest.mark.parametrize("changed", [{"window": 7}, {"position": "rotary"}, {"dilation": 2}])
def test_a_checkpoint_of_other_options_is_refused(saved, stop, changed):
    algo, path = saved
    other = stop(build(ppo(), SMALL.replace(**changed)))
    with pytest.raises(ValueError, match=next(iter(changed))) as caught:
        other.restore_from_path(str(path))
    other = stop(build(ppo(), SMALL.replace(**changed)))
    exec(re.findall("`(algo.*?)`", str(caught.value))[0], {"algo": other, "path": str(path)})
    assert same(weights(other), weights(algo))
    assert mismatch(other, sample(other)) < PARITY
