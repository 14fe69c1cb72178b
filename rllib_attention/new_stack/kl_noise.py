"""PPO's adaptive KL penalty without the noise of dropout.

RLlib's PPO compares the policy that acted, which knows no dropout, with the one in training, which
does. So a policy that has not changed at all is some KL divergence away from itself. Where that is
more than twice `kl_target`, the penalty's coefficient grows by half in each iteration without an
end (`docs/learning.md`).
"""

from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo.ppo import LEARNER_RESULTS_KL_KEY
from ray.rllib.utils.numpy import convert_to_numpy

from rllib_attention.new_stack.connectors.attention_module import inspect_module

KL_OF_DROPOUT = "kl_of_dropout"
"""Name of the metric, beside RLlib's `mean_kl_loss`."""

# To type checkers, the learner that the mixin is put in front of.
_Base: Any = object


class KLNoiseMixin(_Base):
    """Measures dropout's own KL divergence, and takes it out of what the penalty adapts to.

    The first minibatch of an update is evaluated under the very weights that acted: all of its
    divergence is dropout's. What is left of the last minibatch's, at least 0, is reported as
    `mean_kl_loss`. The loss itself is RLlib's. Modules without dropout are left alone.
    """

    def build(self) -> None:
        """Builds the learner."""
        super().build()
        self._kl_of_dropout: dict[str, Any] = {}

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Begins an update.

        Args:
            timesteps: As for RLlib.
        """
        self._kl_of_dropout = {}
        super().before_gradient_based_update(timesteps=timesteps)

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Any:
        """Computes RLlib's loss; of a module's first minibatch it keeps the divergence.

        Args:
            module_id: As for RLlib.
            config: As for RLlib.
            batch: As for RLlib.
            fwd_out: As for RLlib.

        Returns:
            The loss.
        """
        loss = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        if module_id not in self._kl_of_dropout:
            measured = config.use_kl_loss and self._has_dropout(module_id)
            key = (module_id, LEARNER_RESULTS_KL_KEY)
            self._kl_of_dropout[module_id] = self.metrics.peek(key) if measured else None
        return loss

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Ends an update: the coefficient is adapted to the divergence without the noise.

        Args:
            timesteps: As for RLlib.
        """
        for module_id, noise in self._kl_of_dropout.items():
            if noise is None:
                continue
            key = (module_id, LEARNER_RESULTS_KL_KEY)
            noise = float(convert_to_numpy(noise))
            # Unlike Python's `max`, this keeps a NaN, of which RLlib warns.
            kl = np.maximum(float(convert_to_numpy(self.metrics.peek(key))) - noise, 0.0)
            self.metrics.log_value(key, kl, window=1)
            self.metrics.log_value((module_id, KL_OF_DROPOUT), noise, window=1)
        super().after_gradient_based_update(timesteps=timesteps)

    def _has_dropout(self, module_id: str) -> bool:
        found = inspect_module(self.module[module_id])
        return found is not None and found.attention.for_path(windowed=found.windowed).dropout > 0
