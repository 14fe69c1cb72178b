"""A runner and what a learner has (module, connector pipeline), without an Algorithm around them.

    pair = Pair(use_attention(config, ...))
    assert pair.mismatch() < PARITY

It builds in a fraction of the time and starts no threads, so that every algorithm can be tried on
every space. `tests/harness.py` looks at whole algorithms.
"""

from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from rllib_attention.encoder.inputs import RolloutStep, unnested
from rllib_attention.new_stack.algorithms import DataPath, algorithm_traits
from rllib_attention.new_stack.connectors import AddRolloutContext
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from rllib_attention.new_stack.connectors.windows import fragment_windows


class Pair:
    """One runner and one learner's side of an algorithm.

    Args:
        config: A config with attention.
    """

    def __init__(self, config: AlgorithmConfig):
        self.path, self._num_syncs = algorithm_traits(config).data_path, 0
        runner_class = MultiAgentEnvRunner if config.is_multi_agent else SingleAgentEnvRunner
        self.runner = runner_class(config=config)
        spec = config.get_multi_rl_module_spec(spaces=self.runner.get_spaces())
        self.module = spec.build()
        self.pipeline = config.build_learner_connector(
            input_observation_space=None, input_action_space=None
        )
        if isinstance(config, PPOConfig):  # as PPO's learner does
            self.pipeline.prepend(AddOneTsToEpisodesAndTruncate())
        self.sync()

    def sync(self) -> None:
        """Gives the learner's weights to the runner."""
        self._num_syncs += 1
        weights = self.module.get_state(inference_only=True)
        self.runner.set_state({"rl_module": weights, WEIGHTS_SEQ_NO: self._num_syncs})

    def change_weights(self) -> None:
        """Moves every weight, and syncs: what was cached before is stale."""
        with torch.no_grad():
            for _, module in self.module.items():
                for weight in module.unwrapped().parameters():
                    weight += 0.05 * torch.randn_like(weight)
        self.sync()

    def mismatch(self, *, num_timesteps: int = 90) -> float:
        """Returns the worst difference between learner and rollout, across two weight changes.

        On the sequence path that of log-probabilities, on the window path that of the acting
        encoder's outputs.
        """
        measure = self._windows if self.path is DataPath.WINDOW else self._log_probabilities
        worst = measure(num_timesteps)
        for _ in range(2):
            self.change_weights()
            worst = max(worst, measure(num_timesteps))
        return worst

    def _log_probabilities(self, num_timesteps: int) -> float:
        episodes = self.runner.sample(num_timesteps=num_timesteps)
        batch = self.pipeline(
            rl_module=self.module, batch={}, episodes=episodes, shared_data={}, metrics=None
        )
        worst = 0.0
        for module_id, columns in batch.items():
            module = self.module[module_id].unwrapped()
            with torch.no_grad():
                logits = module.forward_train(columns)[Columns.ACTION_DIST_INPUTS]
            distribution = module.get_train_action_dist_cls().from_logits(logits)
            difference = distribution.logp(columns[Columns.ACTIONS]) - columns[Columns.ACTION_LOGP]
            valid = columns[Columns.LOSS_MASK].bool() & _newest(columns)
            assert valid.any()
            worst = max(worst, float(difference[valid].abs().max()))
        return worst

    def _windows(self, num_timesteps: int) -> float:
        return window_mismatch(self.runner, self.module[DEFAULT_MODULE_ID], num_timesteps)


def window_mismatch(runner: SingleAgentEnvRunner, module: RLModule, num_timesteps: int) -> float:
    """Returns the worst difference between what windows give and what the rollout gave.

    Args:
        runner: A runner with the weights of `module`.
        module: A learner's module.
        num_timesteps: Steps to play.
    """
    seen, hook = rollout_outputs(runner)
    episodes = runner.sample(num_timesteps=num_timesteps)
    hook.remove()
    # The first of a module's encoders is the acting one, in runner and learner.
    known = inspect_module(module.unwrapped())
    worst = 0.0
    for episode in episodes:
        windows, _ = fragment_windows(episode, known)
        with torch.no_grad():
            out = known.encoders[0]({Columns.OBS: torch.from_numpy(windows)})["encoder_out"]
        steps = [seen[episode.id_, episode.t_started + i] for i in range(len(episode))]
        worst = max(worst, float((out - torch.stack(steps)).abs().max()))
    return worst


def rollout_outputs(runner: SingleAgentEnvRunner) -> tuple[dict, Any]:
    """Collects a runner's encoder outputs by episode and step, until the returned hook's end."""
    [connector] = [p for p in runner._env_to_module.connectors if isinstance(p, AddRolloutContext)]
    seen = {}

    def collect(encoder, args, out):
        state = RolloutStep.from_state(unnested(args[0][Columns.STATE_IN]))
        slots = connector._connected[None].memory.slots
        episodes = {slot: key for key, slot in slots._slots.items()}
        for (slot, step), row in zip(state.handle.tolist(), out["encoder_out"], strict=True):
            seen[episodes[slot], step] = row

    [encoder, *_] = inspect_module(runner.module).encoders
    return seen, encoder.register_forward_hook(collect)


def _newest(columns: dict) -> torch.Tensor:
    """Returns the steps whose action was drawn under the newest weights.

    In multi-agent episodes a step may begin in one fragment and end in the next, after a sync.
    """
    weights = columns[WEIGHTS_SEQ_NO]
    return weights == weights.max()
