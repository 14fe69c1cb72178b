"""Heads and distributions of RLlib that do not expect a time dimension, mended by subclasses."""

from typing import Any

import torch
import tree
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchMultiDistribution,
)
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead
from torch import Tensor

from rllib_attention.compat import child_distributions


class TimeRankFreeLogStdHead(TorchFreeLogStdMLPHead):
    """RLlib's head with a free log-std, for (B, A) and for (B, T, A).

    RLlib's joins mean and log-std along dimension 1, which is time in a chunk
    (`core/models/torch/heads.py`, `TorchFreeLogStdMLPHead._forward`).
    """

    def _forward(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        mean = self.net(inputs)
        log_std = self.log_std
        if self.clip_log_std:
            limit = self.log_std_clip_param_const
            log_std = torch.clamp(log_std, -limit, limit)
        return torch.cat((mean, log_std.expand_as(mean)), dim=-1)


class TimeRankMultiDistribution(TorchMultiDistribution):
    """A nested action distribution that tells a component dimension from time.

    RLlib's squeezes a last dimension of size 1 of any discrete action, which in a chunk of one
    step is time (`core/distribution/torch/torch_distribution.py`, `TorchMultiDistribution.logp`).
    """

    def logp(self, value: Any) -> Tensor:
        """Returns the sum of the components' log-probabilities.

        Args:
            value: Actions, nested as the space, each (B, ...) or (B, T, ...).
        """
        if isinstance(value, Tensor):
            return super().logp(value)
        pairs = zip(child_distributions(self), tree.flatten(value), strict=True)
        return sum(dist.logp(_without_component_rank(dist, action)) for dist, action in pairs)

    def to_deterministic(self) -> TorchMultiDistribution:
        """Returns the distribution of the most probable actions."""
        certain = super().to_deterministic()
        # Any child's row: a categorical one has no dimension of its own.
        child = child_distributions(self)[0]
        row = child.logits[..., 0] if isinstance(child, TorchCategorical) else child.entropy()
        parts = tree.unflatten_as(certain.sample(), child_distributions(certain))
        return CertainMultiDistribution(parts, torch.zeros_like(row))


class CertainMultiDistribution(TorchMultiDistribution):
    """A nested action that is certain.

    The log-probabilities of RLlib's have the shapes of the actions themselves, and adding those of
    parts with different shapes fails (`core/distribution/torch/torch_distribution.py`,
    `TorchDeterministic.logp`, in `TorchMultiDistribution.logp`).

    Args:
        parts: The parts' distributions, nested as the space.
        zeros: For each row of a batch, (B,) or (B, T).
    """

    def __init__(self, parts: Any, zeros: Tensor):
        super().__init__(parts)
        self._zeros = zeros

    def logp(self, value: Any) -> Tensor:
        """Returns 0 for each row.

        Args:
            value: Not read.
        """
        return self._zeros


def _without_component_rank(dist: Any, action: Tensor) -> Tensor:
    """Squeezes a discrete action of (B, [T,] 1) to (B, [T])."""
    if isinstance(dist, TorchCategorical) and action.dim() == dist.logits.dim():
        return action.squeeze(-1)
    return action


def time_rank_distribution(partial: type[TorchMultiDistribution]) -> type[TorchMultiDistribution]:
    """Returns the nested action distribution that takes a time dimension.

    Args:
        partial: What RLlib's catalog returns for Dict and Tuple actions.
    """
    return type(partial.__name__, (TimeRankMultiDistribution, partial), {})
