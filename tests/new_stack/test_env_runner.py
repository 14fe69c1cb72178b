"""Errors of remote env runners reach the driver, and their processes end all the same."""

import logging
import os
import re
import time

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_attention import use_attention
from rllib_attention.new_stack.env_runner import (
    AttentionEnvRunnerMixin,
    SingleAgentRunner,
    attention_env_runner,
)
from tests.harness import RandomEnv, build, sample
from tests.new_stack.test_life import ppo


class MyRunner(SingleAgentEnvRunner):
    """A user's own."""


class RaisingEnv(RandomEnv):
    """Its 30th step raises an error as long as there is a file.

    Args:
        config: `file`, whose content the error says; else as for `RandomEnv`.
    """

    def __init__(self, config):
        super().__init__(config)
        self._file, self._steps = config["file"], 0

    def step(self, action):
        self._steps += 1
        if self._steps == 30 and os.path.exists(self._file):
            raise ZeroDivisionError(self._file)
        return super().step(action)


def remote(path, *, restart):
    config = ppo(RaisingEnv, lengths=(20, 60), file=str(path))
    config.env_runners(num_env_runners=1)
    return config.fault_tolerance(
        restart_failed_env_runners=restart, delay_between_env_runner_restarts_s=0.1
    )


def multi_agent(config):
    return config.multi_agent(policies={"a"}, policy_mapping_fn=lambda *_, **__: "a")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PPOConfig(), SingleAgentRunner),
        (BCConfig(), SingleAgentRunner),
        (multi_agent(PPOConfig()), MultiAgentEnvRunner),
        (PPOConfig().env_runners(env_runner_cls=MyRunner), MyRunner),
    ],
)
def test_the_class_is_the_users_or_rllibs(config, expected):
    found = attention_env_runner(config)
    assert issubclass(found, expected)
    assert found.__name__ == f"Attention{expected.__name__}"
    assert issubclass(found, AttentionEnvRunnerMixin)
    assert attention_env_runner(config.copy()) is found
    config.env_runners(env_runner_cls=found)
    assert attention_env_runner(config) is found
    copied = cloudpickle.loads(cloudpickle.dumps(found))
    assert copied.__mro__[1:3] == (AttentionEnvRunnerMixin, expected)


def test_an_error_is_the_drivers_exception(stop, tmp_path):
    file = tmp_path / "error"
    file.touch()
    algo = stop(build(remote(file, restart=False)))
    # RLlib raises a `RuntimeError` from what an environment raises.
    with pytest.raises(RuntimeError, match=re.escape(f"ZeroDivisionError: {file}")):
        algo.train()


def test_a_runner_that_raised_is_started_again(stop, tmp_path, caplog):
    file = tmp_path / "error"
    file.touch()
    algo = stop(build(remote(file, restart=True)))

    def process():
        return algo.env_runner_group.foreach_env_runner(
            lambda _: os.getpid(), local_env_runner=False
        )

    [before] = process()
    # RLlib's loggers do not hand on to the root's handlers.
    logger = logging.getLogger("ray.rllib.utils.actor_manager")
    logger.addHandler(caplog.handler)
    try:
        algo.train()
    finally:
        logger.removeHandler(caplog.handler)
    assert str(file) in caplog.text, "the driver says why"
    file.unlink()
    # Ray starts a process, which imports what the old one did.
    deadline = time.monotonic() + 120
    while not algo.train()["num_env_steps_sampled_lifetime"]:
        assert time.monotonic() < deadline
        time.sleep(1)
    [after] = process()
    assert after != before


def test_a_runner_that_raised_does_nothing_more(stop, tmp_path):
    file = tmp_path / "error"
    file.touch()
    algo = stop(build(remote(file, restart=False)))
    [actor] = algo.env_runner_group._worker_manager.actors().values()
    with pytest.raises(ZeroDivisionError):
        ray.get(actor.apply.remote(lambda runner: 1 / 0))
    with pytest.raises(RayActorError):
        ray.get(actor.ping.remote())


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_a_config_may_be_told_to_record_later(stop, tmp_path, num_env_runners):
    config = use_attention(ppo()).copy(copy_frozen=False)
    config.env_runners(num_env_runners=num_env_runners, batch_mode="complete_episodes")
    config.offline_data(output=str(tmp_path / "episodes"), output_write_episodes=True)
    algo = stop(config.build_algo())
    played = sample(algo, num_episodes=3)
    algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.stop(), local_env_runner=num_env_runners == 0
    )
    files = [path for path in (tmp_path / "episodes").rglob("*") if path.is_file()]
    assert files
    assert len(played) >= 3


def test_nothing_is_recorded_unasked(stop, tmp_path):
    algo = stop(build(ppo().env_runners(num_env_runners=0)))
    assert isinstance(algo.env_runner, SingleAgentEnvRunner)
    assert not hasattr(algo.env_runner, "output_path")
    assert sample(algo, num_episodes=1)


def test_a_config_that_got_several_agents_is_refused(stop):
    config = multi_agent(use_attention(ppo()))
    with pytest.raises(ValueError, match=r"for one agent.* set after `use_attention`"):
        attention_env_runner(config)(config=config)


def test_several_agents_are_not_recorded(stop):
    config = multi_agent(ppo()).offline_data(output="episodes")
    with pytest.raises(ValueError, match="must not be set with several agents"):
        attention_env_runner(config)(config=config)
