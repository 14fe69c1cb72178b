"""Actor and critic encoders over one context."""

from typing import Any

from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ACTOR, CRITIC, ENCODER_OUT
from ray.rllib.core.models.configs import ActorCriticEncoderConfig
from ray.rllib.core.models.torch.encoder import TorchActorCriticEncoder

from rllib_attention.encoder.encoder import HANDLE


class AttentionActorCriticEncoder(TorchActorCriticEncoder):
    """RLlib's actor-critic encoder, handing one context to a shared or to two separate encoders.

    RLlib's stateful version needs a critic in every rollout and a state for each encoder. Here
    the context is raw observations, the same for both, and rollouts run the actor only.

    Args:
        config: RLlib's configuration, around an `AttentionEncoderConfig`.
    """

    def __init__(self, config: ActorCriticEncoderConfig):
        super().__init__(config)
        self._actor_name = "encoder" if config.shared else "actor_encoder"

    def get_initial_state(self) -> dict[str, Any]:
        """Returns an empty context; below `CRITIC` if the critic is separate.

        `DefaultPPOTorchRLModule.compute_values` looks for a separate critic's state there.
        """
        state = getattr(self, self._actor_name).get_initial_state()
        return state if self.config.shared or not state else {CRITIC: state}

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        state = inputs.get(Columns.STATE_IN)
        nested = state is not None and CRITIC in state
        if nested:
            inputs = {**inputs, Columns.STATE_IN: inputs[Columns.STATE_IN][CRITIC]}
        actor = getattr(self, self._actor_name)(inputs, **kwargs)
        out = {ACTOR: actor[ENCODER_OUT]}
        critic = None if self.config.shared else self.critic_encoder
        if self.config.shared and not self.config.inference_only:
            out[CRITIC] = out[ACTOR]
        elif critic is not None and not self._skips_critic(state):
            out[CRITIC] = critic(inputs, **kwargs)[ENCODER_OUT]
        result = {ENCODER_OUT: out}
        if Columns.STATE_OUT in actor:
            state_out = actor[Columns.STATE_OUT]
            result[Columns.STATE_OUT] = {CRITIC: state_out} if nested else state_out
        return result

    def _skips_critic(self, state: dict | None) -> bool:
        """Whether nobody reads the critic's output: in rollouts, and in APPO's old policy."""
        if state is not None and HANDLE in state.get(CRITIC, state):
            return True
        return not next(self.critic_encoder.parameters()).requires_grad
