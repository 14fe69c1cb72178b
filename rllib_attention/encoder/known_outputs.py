"""Outputs of an encoder that need not be computed twice."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rllib_attention.encoder.tensor_memo import TensorMemo
from rllib_attention.encoder.weights import Weights


class KnownOutputs:
    """What an encoder made of observations that it is given again under the same weights.

    RLlib's SAC and TQC ask their Q networks twice about the same observations: for the replayed
    actions, and, with all weights frozen, for those of the policy. An encoder sees no actions, so
    its second output is the first one without its history of gradients. Outputs are kept no longer
    than the observations.

    Args:
        weights: All that an output depends on besides the observations.
    """

    def __init__(self, weights: Weights):
        self._weights, self._known = weights, TensorMemo()

    def of(self, obs: Tensor, work_out: Callable[[], Tensor]) -> Tensor:
        """Returns the output for some observations.

        Args:
            obs: The observations.
            work_out: Computes it.

        Returns:
            That of an earlier training pass, detached, where no gradient is wanted; else a new one.
        """
        if torch.is_grad_enabled() and (self._weights.require_grad() or obs.requires_grad):
            output = work_out()
            # Its history would keep the observations alive.
            self._known.put(obs, output.detach(), self._state(obs))
            return output
        output = self._known.get(obs, self._state(obs))
        return work_out() if output is None else output

    def _state(self, obs: Tensor) -> tuple[Any, ...]:
        """Returns what changes when the same pass would give another output."""
        device = obs.device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        return autocast, *self._weights.fingerprint()
