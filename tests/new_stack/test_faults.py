"""What is promised when something breaks; `docs/faults.md` is the same list in words."""

import os
import pickle
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm

from rllib_attention import AttentionPolicy
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


@pytest.mark.parametrize("spoilt", [np.full(3, np.nan, np.float32), np.zeros(4, np.float32)])
@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_observations_that_are_none_end_training(stop, spoilt, num_env_runners):
    SpoiltEnv.steps = 0
    config = build_config(SpoiltEnv, spoil=spoilt).env_runners(num_env_runners=num_env_runners)
    algo = stop(build(config.fault_tolerance(restart_failed_env_runners=False)))
    # RLlib's local runner raises a `RuntimeError` without words from an environment's error.
    rllibs = "shape" if num_env_runners else ""
    with pytest.raises(Exception, match="non-finite" if len(spoilt) == 3 else rllibs):
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


def test_a_truncated_checkpoint_is_refused(saved):
    algo, path = saved
    modules = path / "learner_group" / "learner" / "rl_module"
    [file] = (modules / "default_policy").glob("module_state*")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        Algorithm.from_checkpoint(str(path))
    algo.train()


def test_a_save_that_was_cut_short(saved, stop):
    """`AttentionPolicy` refuses it; RLlib takes what is there, and begins anew with the rest."""
    algo, path = saved
    shutil.rmtree(path / "learner_group")
    with pytest.raises(ValueError, match="expects a checkpoint"):
        AttentionPolicy.from_checkpoint(path)
    assert not same(weights(stop(Algorithm.from_checkpoint(str(path)))), weights(algo))


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


def test_a_checkpoint_of_another_size_is_refused(saved, stop):
    _, path = saved
    other = stop(build(ppo(), SMALL.replace(dim=24)))
    with pytest.raises(RuntimeError, match="size mismatch for encoder"):
        other.restore_from_path(str(path))
