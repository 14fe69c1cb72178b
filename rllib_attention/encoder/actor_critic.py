"""Actor and critic encoders over one context."""

from typing import Any

from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ACTOR, CRITIC, ENCODER_OUT
from ray.rllib.core.models.configs import ActorCriticEncoderConfig
from ray.rllib.core.models.torch.encoder import TorchActorCriticEncoder

from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.inputs import RolloutStep, nested, read_state, unnested


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

    @property
    def actor(self) -> AttentionEncoder:
        """The encoder that acts: the shared one, or the actor's own."""
        return getattr(self, self._actor_name)

    @property
    def nests_state(self) -> bool:
        """Whether RLlib's `compute_values` looks for the state below `CRITIC`."""
        return not self.config.shared

    def get_initial_state(self) -> dict[str, Any]:
        """Returns an empty context, the same for actor and critic."""
        return self.actor.get_initial_state()

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        given = inputs.get(Columns.STATE_IN)
        state = unnested(given)
        inputs = {**inputs, Columns.STATE_IN: state}
        actor = self.actor(inputs, **kwargs)
        out = {ACTOR: actor[ENCODER_OUT]}
        # Nobody reads the critic in rollouts, nor in APPO's old policy.
        is_rollout = isinstance(read_state(state), RolloutStep)
        if self.config.shared and not self.config.inference_only:
            out[CRITIC] = out[ACTOR]
        elif not (self.config.inference_only or is_rollout or self.actor.is_target):
            out[CRITIC] = self.critic_encoder(inputs, **kwargs)[ENCODER_OUT]
        result = {ENCODER_OUT: out}
        if Columns.STATE_OUT in actor:
            state_out = actor[Columns.STATE_OUT]
            result[Columns.STATE_OUT] = state_out if state is given else nested(state_out)
        return result
