"""The attention model for RLlib's old API stack: `model={"custom_model": "attention"}`.

Shapes: B batch, T time, C context, R state rows, P packed size of a step, D embed dim.
"""

import dataclasses
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.appo.utils import TARGET_POLICY_SCOPE
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.models.torch.torch_modelv2 import TorchModelV2
from ray.rllib.policy.sample_batch import SampleBatch
from ray.rllib.policy.view_requirement import ViewRequirement
from torch import Tensor, nn

from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.inputs import ChunkContext
from rllib_attention.old_stack import MODEL_NAME
from rllib_attention.old_stack.model_checks import (
    check_algorithm,
    check_observation_space,
    check_state,
)
from rllib_attention.old_stack.networks import attention_options, new_stack_catalog, policy_head
from rllib_attention.old_stack.step_state import StepState

STATE_IN, STATE_OUT = "state_in_0", "state_out_0"


class AttentionModelV2(TorchModelV2, nn.Module):
    """The attention encoder as a custom model of PPO, APPO and IMPALA on the old API stack.

    Encoders and heads are those of the new stack's default module, down to the names of their
    weights: `model.encoder` and `module.encoder` load each other's `state_dict`. So are the
    tokenizers, which read `fcnet_hiddens`, `conv_filters` and their like from the model dict. With
    `vf_share_layers=False` (PPO's default) the critic has an encoder of its own.

    The state is the raw inputs of the last steps (`StepState`), hence the same function in
    rollouts and in training, gradients through the whole context, and no stale activations.

    Args:
        obs_space: Space of preprocessed observations; RLlib flattens Dict and Tuple, and encodes
            discrete ones.
        action_space: Any action space of RLlib.
        num_outputs: Inputs of the action distribution.
        model_config: RLlib's model dict.
        name: Name of the model.
        **options: Fields of `AttentionConfig`, from `custom_model_config`.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is unknown or wrong, the observation space cannot be tokenized, or
            an algorithm builds this model that gives its models no state. In a forward pass: if
            the state or a previous action or reward is missing, or observations are not finite.

    .. code-block:: python

        from ray.rllib.algorithms.ppo import PPOConfig
        import rllib_attention

        config = (
            PPOConfig()
            .api_stack(
                enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
            )
            .environment("CartPole-v1")
            .training(
                model={
                    "custom_model": "attention",
                    "custom_model_config": {"num_layers": 2, "window": 16},
                    "max_seq_len": 20,
                }
            )
        )
    """

    view_requirements: dict[str, ViewRequirement]

    def __init__(
        self,
        obs_space: gym.Space,
        action_space: gym.Space,
        num_outputs: int,
        model_config: dict[str, Any],
        name: str,
        **options: Any,
    ):
        check_algorithm(type(self), AttentionModelV2, num_outputs)
        check_observation_space(obs_space)
        if model_config.get("custom_model") == MODEL_NAME:
            # This dict is in the policy's checkpoints. A class can be read from them by a process
            # that has not imported this package; a name could not.
            model_config["custom_model"] = AttentionModelV2
        TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
        nn.Module.__init__(self)
        self.attention = attention_options(options, model_config["max_seq_len"])
        # What was left out, as well: another version of this package may have other defaults.
        filled_in = dataclasses.asdict(self.attention.for_path(windowed=False))
        model_config["custom_model_config"] = {**options, **filled_in}
        self.steps = StepState(obs_space, action_space, self.attention)
        catalog = new_stack_catalog(obs_space, action_space, model_config, self.attention)
        # RLlib types these as framework-agnostic models; they are torch modules.
        self.encoder: Any = catalog.build_actor_critic_encoder(framework="torch")
        self.pi: Any = policy_head(catalog, model_config, num_outputs)
        self.vf: Any = catalog.build_vf_head(framework="torch")
        self._drops = False
        self._shared = model_config["vf_share_layers"]
        for part in self.modules():
            if isinstance(part, AttentionEncoder):
                part.embedding.name = f"the model {name!r}"
        self._values: Tensor | None = None
        self._critic_inputs: dict[str, Any] = {}
        self._set_view_requirements()

    def get_initial_state(self) -> list[Any]:
        """Returns the state before an episode's first step, [(R, P)]."""
        return [self.steps.initial()]

    def __call__(
        self,
        input_dict: dict[str, Any],
        state: list[Any] | None = None,
        seq_lens: Any = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Notes whether this is a training pass, which RLlib does not tell `forward`.

        Args:
            input_dict: RLlib's batch.
            state: See `forward`.
            seq_lens: See `forward`.

        Returns:
            See `forward`.
        """
        # Dropout must not act in APPO's target model: nothing would be learnt from it there.
        is_training = bool(getattr(input_dict, "is_training", False)) and torch.is_grad_enabled()
        self._drops = is_training and self.name != TARGET_POLICY_SCOPE
        return super().__call__(input_dict, state or [], seq_lens)

    def forward(
        self, input_dict: dict[str, Any], state: list[Any], seq_lens: Any
    ) -> tuple[Tensor, list[Tensor]]:
        """Computes the action distribution's inputs.

        Args:
            input_dict: RLlib's batch: "obs_flat" and, if they are used, "prev_actions" and
                "prev_rewards", B chunks of T steps in one batch dimension.
            state: [(B, R, P)].
            seq_lens: Steps of each chunk that are real, (B,).

        Returns:
            (B * T, num_outputs), and the state after each chunk, [(B, R, P)].

        Raises:
            ValueError: See the class docstring.
        """
        check_state(self.steps.shape, state, seq_lens)
        seq_lens = torch.as_tensor(seq_lens, device=state[0].device).long()
        inputs, state_out = self._encoder_inputs(input_dict, state[0], seq_lens)
        self.encoder.train(self._drops)
        name = "encoder" if self._shared else "actor_encoder"
        features = getattr(self.encoder, name)(inputs)[ENCODER_OUT].flatten(0, 1)
        if self._shared:
            self._values = self.vf(features).squeeze(-1)
        else:
            # The critic runs when somebody asks: not every rollout does.
            self._values, self._critic_inputs = None, inputs
        return self.pi(features), [state_out]

    def value_function(self) -> Tensor:
        """Returns the values of the steps of the latest forward pass, (B * T,)."""
        if self._values is None:
            self.encoder.train(self._drops)
            features = self.encoder.critic_encoder(self._critic_inputs)[ENCODER_OUT]
            self._values = self.vf(features.flatten(0, 1)).squeeze(-1)
            self._critic_inputs = {}
        return self._values

    def _set_view_requirements(self) -> None:
        """Asks RLlib for a state per chunk (not per step), previous action and reward."""
        space = self.steps.space()
        self.view_requirements[STATE_IN] = ViewRequirement(
            STATE_OUT, shift=-1, batch_repeat_value=self.attention.max_seq_len, space=space
        )
        self.view_requirements[STATE_OUT] = ViewRequirement(
            space=space, used_for_compute_actions=False, used_for_training=False
        )
        # One step back only: RLlib's windows over several steps are off by one. Older ones are
        # in the state.
        if self.attention.prev_actions:
            self.view_requirements[SampleBatch.PREV_ACTIONS] = ViewRequirement(
                SampleBatch.ACTIONS, shift=-1, space=self.action_space
            )
        if self.attention.prev_rewards:
            self.view_requirements[SampleBatch.PREV_REWARDS] = ViewRequirement(
                SampleBatch.REWARDS, shift=-1
            )

    def _encoder_inputs(
        self, input_dict: dict[str, Any], state: Tensor, seq_lens: Tensor
    ) -> tuple[dict[str, Any], Tensor]:
        """Returns the encoder's inputs and the next state."""
        num_chunks = len(seq_lens)
        obs = self._observations(input_dict).unflatten(0, (num_chunks, -1))
        step = torch.arange(obs.shape[1], device=obs.device)
        is_first = (step == 0) & (state[:, -1:, -1] == 0)
        previous = self._previous_rows(input_dict, is_first)
        chunk = self.steps.pack(obs, previous, step < seq_lens.unsqueeze(1))
        rows = torch.cat((state.to(chunk.dtype), chunk), dim=1)
        # The last R rows up to each chunk's last real step.
        last = seq_lens.unsqueeze(1) + torch.arange(self.steps.num_rows, device=obs.device)
        state_out = rows[torch.arange(num_chunks, device=obs.device).unsqueeze(1), last]
        state_in = self._encoder_state(rows, obs.shape[1], seq_lens)
        return {Columns.OBS: obs, Columns.STATE_IN: state_in}, state_out

    def _encoder_state(self, rows: Tensor, num_steps: int, seq_lens: Tensor) -> dict[str, Tensor]:
        """Returns what `AttentionEncoder` needs beside a chunk's observations."""
        obs, previous, valid = self.steps.unpack(rows)
        context = slice(self.steps.num_rows - self.steps.context_len, -num_steps)
        return ChunkContext(
            context=obs[:, context],
            context_length=valid[:, context].sum(dim=1),
            chunk_length=seq_lens,
            prev=previous[:, context.start - self.steps.reach :] if self.steps.prev.size else None,
        ).to_state()

    def _observations(self, input_dict: dict[str, Any]) -> Tensor:
        obs = input_dict["obs_flat"]
        if self.steps.dtype == torch.uint8 and obs.is_floating_point():
            raise ValueError(
                f"Observations of {self.obs_space} reach the model as {obs.dtype}, which its state "
                "cannot keep: expected torch.uint8. Use "
                '`config.env_runners(observation_filter="NoFilter")`, or declare the observation '
                "space as float32."
            )
        return obs.reshape(-1, *self.steps.obs_shape)

    def _previous_rows(self, input_dict: dict[str, Any], is_first: Tensor) -> Tensor:
        actions = self._previous(input_dict, SampleBatch.PREV_ACTIONS, "prev_action", is_first)
        rewards = self._previous(input_dict, SampleBatch.PREV_REWARDS, "prev_reward", is_first)
        return self.steps.previous_rows(actions, rewards, is_first)

    def _previous(
        self, input_dict: dict[str, Any], column: str, argument: str, is_first: Tensor
    ) -> Any:
        """Returns a column of the batch; None if it is not used, or not there at first steps."""
        if not getattr(self.attention, column):
            return None
        if column in input_dict:
            return input_dict[column]
        if not is_first.all():
            raise ValueError(
                f"The model uses `{column}`, but the batch has none for a step that is not its "
                f"episode's first. Use `policy.compute_single_action(obs, state, {argument}=...)`."
            )
        return None
