"""The attention encoder that every path, algorithm and API stack shares.

Shapes: B batch, T time, C context, S = C + T, D embed dim, F previous-action and -reward features.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT, Encoder
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.base import TorchModel
from torch import Tensor, nn

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.packed_runs import read_runs
from rllib_attention.encoder.packed_window import unpack_tokens
from rllib_attention.encoder.prev_inputs import PrevInputs
from rllib_attention.encoder.rollout_cache import RolloutCache
from rllib_attention.encoder.rollout_history import RolloutHistory
from rllib_attention.nn import PackedLayout, Transformer

# Keys of `STATE_IN`: a chunk's context in training, a cache slot and its step in a rollout.
CONTEXT = "context"  # (B, C, *obs)
LENGTH = "length"  # (B, 2): valid context steps, valid chunk steps
FEATURES = "features"  # (B, S, F) with a context, (B, F) with a handle
HANDLE = "handle"  # (B, 2): slot, time step


@dataclass
class AttentionEncoderConfig(ModelConfig):
    """Configures an `AttentionEncoder`.

    Attributes:
        attention: The model's options.
        tokenizer_config: RLlib's encoder config for one observation (MLP or CNN).
        observation_space: Space of one observation.
        action_space: The module's action space; read for previous actions only.
        windowed: Whether training observations are windows in one tensor (`window.py`; DQN, SAC
            and their kin) instead of chunks with a context in `STATE_IN`.
    """

    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    tokenizer_config: ModelConfig | None = None
    observation_space: gym.Space | None = None
    action_space: gym.Space | None = None
    windowed: bool = False

    @property
    def output_dims(self) -> tuple[int]:
        """The size of what the encoder returns for a step: (D,)."""
        return (self.attention.dim,)

    def build(self, framework: str = "torch") -> "AttentionEncoder":
        """Builds the encoder.

        Args:
            framework: "torch".

        Raises:
            ValueError: If `framework` is not torch, or there is no tokenizer or space.
        """
        if framework != "torch":
            raise ValueError(f"AttentionEncoder needs framework 'torch', got {framework!r}.")
        for name in ("tokenizer_config", "observation_space"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"AttentionEncoderConfig needs `{name}`, got None. In your own catalog, take "
                    "`cls.get_tokenizer_config(observation_space, model_config_dict)`."
                )
        return AttentionEncoder(self)


class AttentionEncoder(TorchModel, Encoder):
    """Tokenizer, previous actions and rewards, and the transformer over the observation sequence.

    What it is given decides how it computes one and the same function:

    - `STATE_IN` with a context (training on chunks, or inference by hand): `obs` (B, T, ...),
      and the raw observations of the C steps before each chunk.
    - `STATE_IN` with a handle (RLlib's rollouts): `obs` (B, ...), and the cache slot and time
      step of each row; keys and values of earlier steps come from a cache that is rebuilt from
      raw observations whenever the weights have changed.
    - no `STATE_IN` (training of a `windowed` encoder): `obs` (B, C + 1, P), packed windows.

    Args:
        config: The configuration.

    Raises:
        ValueError: In a forward pass, if `obs` has non-finite values (and
            `attention.check_finite` is on), or if the batch fits none of the cases above.
    """

    def __init__(self, config: AttentionEncoderConfig):
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        # `AttentionEncoderConfig.build` sees to these.
        assert config.tokenizer_config is not None
        assert config.observation_space is not None
        attention = config.attention
        self.prev_inputs = PrevInputs(
            config.action_space, attention.prev_actions, attention.prev_rewards
        )
        self.tokenizer = config.tokenizer_config.build(framework="torch")
        token_dim = config.tokenizer_config.output_dims[0]
        self.input = nn.Linear(token_dim + self.prev_inputs.size, attention.dim)
        self.transformer = Transformer(
            dim=attention.dim,
            num_layers=attention.num_layers,
            num_heads=attention.num_heads,
            head_size=attention.head_size,
            window=attention.window,
            ffn_dim=attention.ffn_dim,
            position=attention.position,
            gate=attention.gate,
            gate_bias=attention.gate_bias,
            dropout=attention.dropout,
        )
        self.name = "the RLModule"
        self._obs_shape = tuple(config.observation_space.shape or ())
        self._cache: RolloutCache | None = None
        self._dropout_armed = False

    def get_initial_state(self) -> dict[str, Tensor]:
        """Returns an empty context for one row, or nothing for a `windowed` encoder."""
        if self.config.windowed:
            return {}
        context = self.config.attention.context_len
        dtype = _torch_dtype(self.config.observation_space.dtype)
        state = {
            CONTEXT: torch.zeros((context, *self._obs_shape), dtype=dtype),
            LENGTH: torch.tensor([0, 1]),
        }
        if self.prev_inputs.size:
            state[FEATURES] = torch.zeros(context + 1, self.prev_inputs.size)
        return state

    def attach_history(self, history: RolloutHistory, name: str) -> None:
        """Connects the encoder to the raw inputs of a runner's episodes.

        Args:
            history: Kept by `connectors.AddRolloutContext`.
            name: What errors call this module.
        """
        self.name = name
        self._cache = RolloutCache(history, self.config.attention)

    def is_attached(self, history: RolloutHistory) -> bool:
        """Returns whether rollouts of this encoder read `history`."""
        return self._cache is not None and self._cache.history is history

    def train(self, mode: bool = True) -> "AttentionEncoder":
        """Arms dropout for the next pass.

        `TorchRLModule.forward_train` calls this first, while value passes (GAE, bootstraps,
        targets) call the encoder again without it: so dropout acts in training passes only.
        """
        self._dropout_armed = mode
        # RLlib switches twice in every rollout step; walking the whole tree takes a third of it.
        return self if mode == self.training else super().train(mode)

    def embed(self, obs: Tensor, features: Tensor | None) -> Tensor:
        """Maps inputs to tokens.

        Args:
            obs: (N, *obs).
            features: (N, F), or None if F is 0.

        Returns:
            (N, D).
        """
        # A sum is one kernel. If it is not finite, that may be an overflow: look again.
        is_checked = self.config.attention.check_finite and obs.is_floating_point()
        if is_checked and not math.isfinite(obs.sum()):
            self._check_finite(obs)
        token = self.tokenizer({Columns.OBS: obs.float()})[ENCODER_OUT]
        if self.prev_inputs.size:
            assert features is not None
            token = torch.cat((token, features), dim=-1)
        return self.input(token)

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        obs, state = inputs[Columns.OBS], inputs.get(Columns.STATE_IN)
        dropout = self._dropout_armed and self.input.weight.requires_grad
        self._dropout_armed = False
        if state is None and self.config.windowed:
            return {ENCODER_OUT: self._forward_windows(obs, dropout)}
        if state and HANDLE in state:
            return {ENCODER_OUT: self._forward_step(obs, state)}
        if state and CONTEXT in state:
            return self._forward_chunks(obs, state, dropout)
        raise ValueError(
            "AttentionEncoder needs the context of each observation: `state_in` as from "
            "`module.get_initial_state()` and the last `state_out`, or RLlib's connectors. Got "
            f"`state_in` {state if state is None else sorted(state)}. If this is a training run, "
            "something removed the connectors of `use_attention(config)`: call it last."
        )

    def _forward_chunks(self, obs: Tensor, state: dict, dropout: bool) -> dict:
        """Chunks (B, T, *obs) with their context → (B, T, D)."""
        num_steps, context = obs.shape[1], state[CONTEXT].shape[1]
        rows = torch.cat((state[CONTEXT].to(obs.dtype), obs), dim=1)
        # Valid steps of the context, which is right-aligned, and of the chunk.
        before, within = state[LENGTH].cpu().numpy().T
        layout = PackedLayout(
            context - before, context + within, context + num_steps, num_steps, obs.device
        )
        features = layout.pack(state[FEATURES]) if self.prev_inputs.size else None
        tokens = self.embed(layout.pack(rows), features)
        out = layout.unpack(self.transformer(tokens, layout, dropout=dropout))
        if torch.is_grad_enabled():
            return {ENCODER_OUT: out}
        return {ENCODER_OUT: out, Columns.STATE_OUT: self._next_state(rows, state)}

    def _next_state(self, rows: Tensor, state: dict) -> dict[str, Tensor]:
        """The state for the step after a chunk without padding: its last C steps."""
        context = self.config.attention.context_len
        known = (state[LENGTH].sum(dim=1)).clamp(max=context)
        length = torch.stack((known, torch.ones_like(known)), dim=1)
        out = {CONTEXT: rows[:, rows.shape[1] - context :], LENGTH: length}
        if self.prev_inputs.size:
            # The next step's previous action and reward are not known yet: the last entry is 0.
            features = state[FEATURES]
            kept = features[:, features.shape[1] - context :]
            out[FEATURES] = torch.cat((kept, torch.zeros_like(features[:, :1])), dim=1)
        return out

    def _forward_windows(self, packed: Tensor, dropout: bool) -> Tensor:
        """Packed windows (B, C + 1, P), or a stream of runs in rows (B, K, P) → (B, D)."""
        obs, features, tags = unpack_tokens(packed, self._obs_shape, self.prev_inputs.size)
        runs = read_runs(packed, tags)
        obs, features = obs.flatten(0, 1), features.flatten(0, 1)
        if runs is None:
            tokens = self.embed(obs, features).unflatten(0, tags.shape)
            rows = self.transformer.forward_rows(tokens, tags > 0, 1, dropout=dropout)
            return rows.squeeze(1)
        if runs.tokens is not None:
            obs, features = obs[runs.tokens], features[runs.tokens]
        out = self.transformer(self.embed(obs, features), runs.packed, dropout=dropout)
        return out if runs.outputs is None else out[runs.outputs]

    @torch.no_grad()
    def _forward_step(self, obs: Tensor, state: dict) -> Tensor:
        """One step (B, *obs) or, beside RNN modules, (B, 1, *obs) → (B, D) or (B, 1, D)."""
        if self._cache is None:
            raise ValueError(
                "A rollout handle reached an encoder without a history: the env-to-module "
                "connector of `use_attention(config)` did not see this module. Call it last."
            )
        has_time = obs.dim() == len(self._obs_shape) + 2
        handle, features = state[HANDLE], state.get(FEATURES)
        if has_time:
            obs = obs.squeeze(1)
        out = self._cache.forward(self, obs, features, handle)
        return out.unsqueeze(1) if has_time else out

    def _check_finite(self, obs: Tensor) -> None:
        if not torch.isfinite(obs).all():
            bad = int((~torch.isfinite(obs)).sum())
            raise ValueError(
                f"Observations of {self.name} hold {bad} non-finite values (NaN or infinity) of "
                f"{obs.numel()}: expected finite ones. Mend the environment, or switch this check "
                "off by `use_attention(config, check_finite=False)`."
            )

    def __getstate__(self) -> dict:
        """Leaves the rollout cache out of copies (target networks) and pickles."""
        return {**self.__dict__, "_cache": None}


def _torch_dtype(dtype: Any) -> torch.dtype:
    """Returns the type in which RLlib's `NumpyToTensor` hands over an array of this type."""
    converted = torch.from_numpy(np.zeros((), dtype)).dtype
    return torch.float32 if converted.is_floating_point else converted
