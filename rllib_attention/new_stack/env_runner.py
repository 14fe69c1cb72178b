"""Env runners whose errors reach the driver.

RLlib ends the process of a remote env runner that raises, before Ray can send the error: the driver
sees that an actor died, and not why. The text is in a worker's log file, which nobody sees with
`ray.init(log_to_driver=False)`.
"""

import sys
from collections.abc import Callable
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.offline.offline_env_runner import OfflineSingleAgentEnvRunner

# To type checkers, the env runner that the mixin is put in front of.
_Base: Any = object


class SingleAgentRunner(OfflineSingleAgentEnvRunner):
    """RLlib's runner of one agent, which records where `config.offline_data(output=...)` says so.

    RLlib has a class for each, and takes it when the algorithm is built. Ours is set before that,
    and a trained policy's config is often told to record later.
    """

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        """Makes a runner.

        Args:
            config: As for RLlib.
            **kwargs: As for RLlib.
        """
        self._kind = OfflineSingleAgentEnvRunner if config.output else SingleAgentEnvRunner
        self._kind.__init__(self, config=config, **kwargs)

    def sample(self, **kwargs: Any) -> list[SingleAgentEpisode]:
        """Samples, and writes what was sampled.

        Args:
            **kwargs: As for RLlib.

        Returns:
            Fragments of episodes.
        """
        return self._kind.sample(self, **kwargs)

    def stop(self) -> None:
        """Ends the environments, and writes what is left."""
        self._kind.stop(self)


class AttentionEnvRunnerMixin(_Base):
    """What `attention_env_runner` puts in front of an env runner class.

    The process of a runner that raised ends at the next call, not at once: what it holds may be
    broken, and `restart_failed_env_runners` decides, as ever, whether Ray starts it again.
    """

    _has_raised = False

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        """Makes a runner.

        Args:
            config: As for RLlib.
            **kwargs: As for RLlib.

        Raises:
            ValueError: If the config has got several agents since `use_attention`, or asks several
                agents to be recorded.
        """
        _check_kind(type(self), config)
        super().__init__(config=config, **kwargs)

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function with this runner; its error is raised in the driver as well.

        Args:
            func: The function.
            *args: As for RLlib.
            **kwargs: As for RLlib.

        Returns:
            What the function returns.

        Raises:
            Exception: Whatever the function raises.
        """
        self._end_if_it_has_raised()
        try:
            return func(self, *args, **kwargs)
        except Exception:
            self._has_raised = True
            raise

    def ping(self) -> str:
        """Says that the runner is well; the process of one that has raised ends."""
        self._end_if_it_has_raised()
        return super().ping()

    def _end_if_it_has_raised(self) -> None:
        if self._has_raised:
            sys.exit(1)


_env_runners: dict[type[EnvRunner], type[EnvRunner]] = {}


def attention_env_runner(config: AlgorithmConfig) -> type[EnvRunner]:
    """Returns a class of env runners whose errors reach the driver.

    Args:
        config: With an `env_runner_cls` of your own, or None for the one that RLlib would take.

    Returns:
        A subclass of it, the same one for the same class.
    """
    given = config.env_runner_cls or _rllibs(config)
    if issubclass(given, AttentionEnvRunnerMixin):
        return given
    if given not in _env_runners:
        name = f"Attention{given.__name__}"
        body = {"__doc__": f"{given.__name__} for attention.", "__module__": __name__}
        _env_runners[given] = type(name, (AttentionEnvRunnerMixin, given), body)
    return _env_runners[given]


def _check_kind(runner: type[EnvRunner], config: AlgorithmConfig) -> None:
    if config.is_multi_agent and issubclass(runner, SingleAgentRunner):
        raise ValueError(
            "The config's env runners are for one agent, but got a config for several: "
            "`config.multi_agent(policies=...)` was set after `use_attention`. Call "
            "`use_attention(config)` last, or set `config.env_runners(env_runner_cls=...)`."
        )
    if config.output and issubclass(runner, MultiAgentEnvRunner):
        raise ValueError(
            "`config.offline_data(output=...)` must not be set with several agents, but got "
            f"{config.output!r}: RLlib records episodes of one agent only."
        )


def _rllibs(config: AlgorithmConfig) -> type[EnvRunner]:
    """Returns the class that does what RLlib's does where none is set."""
    return MultiAgentEnvRunner if config.is_multi_agent else SingleAgentRunner
