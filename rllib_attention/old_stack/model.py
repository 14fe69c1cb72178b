"""The attention model for RLlib's old API stack: `model={"custom_model": "attention"}`.

Shapes: B batch, T time, C context, R state rows, P packed size of a step, D embed dim.
"""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.algorithms.appo.utils import TARGET_POLICY_SCOPE
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.models.torch.torch_modelv2 import TorchModelV2
from ray.rllib.policy.sample_batch import SampleBatch
from ray.rllib.policy.view_requirement import ViewRequirement
from ray.rllib.utils.spaces.simplex import Simplex
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space
from torch import Tensor, nn

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.catalog import ATTENTION, attention_catalog
from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.inputs import ChunkContext
from rllib_attention.old_stack.step_state import StepState

STATE_IN, STATE_OUT = "state_in_0", "state_out_0"

# Keys of the old stack's model dict that the new stack has under another name.
_RENAMED = {
    "fcnet_weights_initializer": "fcnet_kernel_initializer",
    "fcnet_weights_initializer_config": "fcnet_kernel_initializer_kwargs",
    "fcnet_bias_initializer_config": "fcnet_bias_initializer_kwargs",
    "conv_kernel_initializer_config": "conv_kernel_initializer_kwargs",
    "conv_bias_initializer_config": "conv_bias_initializer_kwargs",
    "post_fcnet_hiddens": "head_fcnet_hiddens",
    "post_fcnet_activation": "head_fcnet_activation",
    "post_fcnet_weights_initializer": "head_fcnet_kernel_initializer",
    "post_fcnet_weights_initializer_config": "head_fcnet_kernel_initializer_kwargs",
    "post_fcnet_bias_initializer": "head_fcnet_bias_initializer",
    "post_fcnet_bias_initializer_config": "head_fcnet_bias_initializer_kwargs",
}

NEW_STACK = (
    "`config.api_stack(enable_rl_module_and_learner=True, "
    "enable_env_runner_and_connector_v2=True)` and then `use_attention(config)`"
)
_STATE_HELP = (
    "Rollouts start from `state=policy.get_initial_state()` and go on with the state that "
    "`compute_single_action` returns. If this happened in training: of the old API stack's "
    f"algorithms only PPO, APPO and IMPALA train models with a state; with another one, use "
    f"{NEW_STACK}."
)


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
        _check_user(type(self), num_outputs)
        _check_observation_space(obs_space)
        TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
        nn.Module.__init__(self)
        self.attention = _attention_config(options, model_config["max_seq_len"])
        self.steps = StepState(obs_space, action_space, self.attention)
        catalog = _catalog(obs_space, action_space, model_config, self.attention)
        # RLlib types these as framework-agnostic models; they are torch modules.
        self.encoder: Any = catalog.build_actor_critic_encoder(framework="torch")
        if model_config.get("custom_action_dist") or not _is_on_new_stack(action_space):
            self.pi: Any = _plain_head(catalog, num_outputs)
        else:
            self.pi = catalog.build_pi_head(framework="torch")
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
        self._check_state(state, seq_lens)
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

    def _check_state(self, state: list[Tensor], seq_lens: Tensor | None) -> None:
        expected = self.steps.shape
        shapes = [tuple(x.shape[1:]) for x in state]
        if shapes != [expected] or seq_lens is None:
            given = f"states of shapes {shapes}" if state else "no state"
            raise ValueError(
                f"The attention model expects one state of shape {expected} for each sequence, and "
                f"sequence lengths; got {given} and seq_lens {seq_lens}. {_STATE_HELP}"
            )


def _attention_config(options: dict[str, Any], max_seq_len: int) -> AttentionConfig:
    given = options.get("max_seq_len")
    if given is not None and given != max_seq_len:
        raise ValueError(
            f"`custom_model_config` asks for max_seq_len={given}, but RLlib cuts sequences by the "
            f"model dict's own max_seq_len={max_seq_len}: expected the same. Use "
            f'`config.training(model={{"max_seq_len": {given}}})`.'
        )
    return AttentionConfig.from_dict({**options, "max_seq_len": max_seq_len})


def _catalog(
    obs_space: gym.Space,
    action_space: gym.Space,
    model_config: dict[str, Any],
    attention: AttentionConfig,
) -> PPOCatalog:
    """Returns the new stack's catalog with the options of the old stack's model dict."""
    options = {_RENAMED.get(key, key): value for key, value in model_config.items()}
    known = {field.name for field in dataclasses.fields(DefaultModelConfig)}
    options = {key: value for key, value in options.items() if key in known}
    catalog_class: Any = attention_catalog(PPOCatalog)
    return catalog_class(obs_space, action_space, {**options, ATTENTION: attention.to_dict()})


def _plain_head(catalog: PPOCatalog, num_outputs: int) -> nn.Module:
    """Builds a policy head for a distribution of any size."""
    config = dataclasses.replace(catalog.vf_head_config, output_layer_dim=num_outputs)
    return config.build(framework="torch")


def _is_on_new_stack(action_space: gym.Space) -> bool:
    """Returns whether the new stack has a distribution for an action space of the old one."""
    return not any(
        isinstance(space, Simplex)
        or (isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.integer))
        for space in tree.flatten(get_base_struct_from_space(action_space))
    )


def _check_user(model_class: type, num_outputs: int | None) -> None:
    """Raises if an algorithm builds the model that will not give it a state."""
    bases = [base for base in model_class.__mro__ if issubclass(base, TorchModelV2)]
    interfaces = [
        base.__name__
        for base in bases
        if base is not TorchModelV2 and not issubclass(base, AttentionModelV2)
    ]
    # SAC and CQL build their model without outputs, DQN mixes an interface in.
    if num_outputs is None or interfaces:
        user = interfaces[0] if interfaces else "the model of SAC or CQL"
        raise ValueError(
            f"The attention model cannot serve as {user}, which gets neither a state nor sequences "
            "on the old API stack: expected PPO, APPO or IMPALA. With another algorithm, use "
            f"{NEW_STACK}."
        )


def _check_observation_space(space: gym.Space) -> None:
    if isinstance(space, gym.spaces.Box) and len(space.shape) in (1, 3):
        return
    mend = "Reshape it in an environment wrapper"
    if not isinstance(space, gym.spaces.Box):
        mend = "Leave RLlib's preprocessors on: `_disable_preprocessor_api=False`"
    raise ValueError(
        "The attention model needs preprocessed observations, Box of 1 or 3 dimensions, got "
        f"{space}. {mend}."
    )
