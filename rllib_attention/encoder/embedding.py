"""From the inputs of a step to its token: tokenizer, previous actions and rewards, input layer."""

import functools

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.configs import ModelConfig
from torch import Tensor, nn

from rllib_attention.encoder.finite import check_finite
from rllib_attention.encoder.prev_inputs import PrevInputs

_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.RReLU)


class Embedding(nn.Module):
    """Maps each step on its own to a token of the transformer.

    Shapes: N steps, P carried previous actions and rewards, D embed dim.

    Args:
        tokenizer_config: RLlib's encoder config for one observation (MLP or CNN).
        prev_inputs: Encodes previous actions and rewards.
        dim: Embed dim D.
        token_size: Of the numbers of normed tokens, at first; 0 if they are not normed.
        check_finite: Whether observations that are not finite raise an error.

    Attributes:
        name: What errors call the module that this belongs to.
    """

    _source: Tensor
    _choice: Tensor

    def __init__(
        self,
        tokenizer_config: ModelConfig,
        prev_inputs: PrevInputs,
        dim: int,
        *,
        token_size: float,
        check_finite: bool,
    ):
        super().__init__()
        self.prev_inputs, self.check_finite = prev_inputs, check_finite
        self.tokenizer = tokenizer_config.build(framework="torch")
        token_dim = tokenizer_config.output_dims[0]
        self.input = nn.Linear(token_dim + prev_inputs.encoded_size, dim, bias=not token_size)
        self.norm = nn.LayerNorm(dim) if token_size else None
        if self.norm is not None:
            nn.init.constant_(self.norm.weight, token_size)
        self.name = "the RLModule"
        for name, table in zip(("_source", "_choice"), prev_inputs.tables(), strict=True):
            self.register_buffer(name, table, persistent=False)

    @functools.cached_property
    def is_random(self) -> bool:
        """Whether a tokenizer of the user's own drops out."""
        return any(isinstance(part, _RANDOM) for part in self.tokenizer.modules())

    def check(self, obs: Tensor) -> None:
        """Checks observations that no learner connector has checked.

        Args:
            obs: (N, *obs).

        Raises:
            ValueError: If an observation is not finite, unless `check_finite` is off.
        """
        if self.check_finite:
            check_finite(obs, self.name, lambda step: f"step {step} of {len(obs)} in this pass")

    def forward(self, obs: Tensor, prev: Tensor | None) -> Tensor:
        """Maps steps to tokens.

        Args:
            obs: (N, *obs).
            prev: (N, P); not read if P is 0.

        Returns:
            (N, D).
        """
        token = self.tokenizer({Columns.OBS: obs.float()})[ENCODER_OUT]
        if self.prev_inputs.size:
            assert prev is not None
            features = self.prev_inputs.encode(prev.float(), self._source, self._choice)
            token = torch.cat((token, features), dim=-1)
        token = self.input(token)
        return token if self.norm is None else self.norm(token)
