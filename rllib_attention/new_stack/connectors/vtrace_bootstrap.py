"""Keeps V-trace's bootstrap where a fragment ends without the episode ending (APPO, IMPALA)."""

from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.typing import EpisodeType

from rllib_attention.new_stack.connectors.attention_module import find_attention

# exp(log π − this) is 0 in float32 for any log-density that a policy may have. Finite, because
# batches are checked for infinities in places, and inf − inf would be NaN.
_ZERO_WEIGHT_LOGP = 1e6


class BootstrapVTraceAtFragmentEnds(ConnectorV2):
    """Gives the artificial last step of each fragment the importance weight 0 in V-trace.

    V-trace's targets are v_t = V_t + ρ_t (r_t + γ_t V_{t+1} − V_t) + γ_t c_t (v_{t+1} − V_{t+1}).
    RLlib appends one artificial step to each fragment, so that its value V_n can be the bootstrap
    of the last real step n − 1, and sets γ_n = 0 there. What remains at that step is
    v_n − V_n = −ρ_n V_n, which one step earlier cancels the bootstrap that it was added for:

        n − 1:   ρ (r + γ V_n − V) + γ c (v_n − V_n)   =   r − V   (ρ = c = 1)

    With ρ_n = 0 the artificial step's target is its value, v_n = V_n, and the bootstrap stays.
    V-trace computes ρ from the log-probability with which the runner chose the action, so that is
    where the weight is set; the loss mask keeps the step out of everything else, as before.

    Where: behind `AddContextToTrainBatch`, in APPO and IMPALA only.
    Reads: `LOSS_MASK`, which is False at artificial steps and in padding.
    Writes: `ACTION_LOGP` at those steps.
    Leaves alone: real steps; modules without attention.

    .. code-block:: python

        from ray.rllib.algorithms.appo import APPOConfig
        from rllib_attention.new_stack.connectors import (
            AddContextToTrainBatch,
            BootstrapVTraceAtFragmentEnds,
        )

        config = APPOConfig().learners(
            learner_connector=lambda obs_space, action_space: [
                AddContextToTrainBatch(),
                BootstrapVTraceAtFragmentEnds(),
            ]
        )
    """

    def __call__(
        self,
        *,
        rl_module: RLModule,
        batch: dict[str, Any],
        episodes: list[EpisodeType],
        explore: bool | None = None,
        shared_data: dict | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Sets the weights. See the class docstring."""
        known = find_attention(rl_module)
        logps = batch.get(Columns.ACTION_LOGP, {})
        for key, rows in logps.items():
            module_id = key[2] if len(key) == 3 else None
            if module_id in known:
                masks = batch[Columns.LOSS_MASK][key]
                logps[key] = [
                    np.where(mask, row, row.dtype.type(_ZERO_WEIGHT_LOGP))
                    for mask, row in zip(masks, rows, strict=True)
                ]
        return batch
