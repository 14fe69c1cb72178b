"""The attention encoder that every path, algorithm and API stack shares.

Shapes: B batch, T time, C context, S = C + T, D embed dim, A row of a previous action and reward,
P stacked rows, R the rows of a context.
"""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT, Encoder
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.base import TorchModel
from torch import Tensor

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.chunk_checks import check_chunks, rows_by_hand
from rllib_attention.encoder.chunk_layouts import chunk_layout
from rllib_attention.encoder.embedding import Embedding
from rllib_attention.encoder.host_tags import known_tags
from rllib_attention.encoder.inputs import ChunkContext, RolloutStep, read_state
from rllib_attention.encoder.known_outputs import KnownOutputs
from rllib_attention.encoder.packed_runs import RunLayout, WindowLayout, read_layout
from rllib_attention.encoder.packed_window import unpack_tokens
from rllib_attention.encoder.passes import Pass, compiled_pass, run_pass
from rllib_attention.encoder.prev_inputs import PrevInputs
from rllib_attention.encoder.rollout_cache import StepCache
from rllib_attention.encoder.weights import Weights
from rllib_attention.nn import Transformer, View

_OF_THIS_ENCODER = ("_weights", "_known_outputs")

# A fresh feed-forward is noise beside what a normed step and its past say.
_FFN_GAIN = 0.1


@dataclass
class AttentionEncoderConfig(ModelConfig):
    """Configures an `AttentionEncoder`.

    Attributes:
        attention: The model's options.
        tokenizer_config: RLlib's encoder config for one observation (MLP or CNN).
        observation_space: Space of one observation.
        action_space: The module's action space; read for previous actions only.
        windowed: Whether training observations are windows in one tensor (`packed_window.py`; DQN,
            SAC and their kin) instead of chunks with a context in `STATE_IN`.
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

    What it is given (`inputs.py`) decides how it computes one and the same function:

    - `STATE_IN` with a context (training on chunks, or steps by hand): `obs` (B, T, *obs), and the
      raw observations of the C steps before each chunk. Where nothing says how much of a chunk is
      real, all of it is, and `STATE_OUT` is the context of the step after it. With previous
      actions or rewards, steps by hand bring `prev_actions` and `prev_rewards` (B, T, ...), which
      are not read at an episode's first step.
    - `STATE_IN` with a handle (RLlib's rollouts): `obs` (B, *obs), and the slot and time step of
      each row; keys and values of earlier steps come from a cache that is rebuilt from raw
      observations whenever the weights have changed.
    - no `STATE_IN` (training of a `windowed` encoder): packed windows in `obs`.

    Args:
        config: The configuration.

    Raises:
        ValueError: In a forward pass, if shapes are not those above, if there is no context, if a
            previous action or reward is missing, or if `obs` has non-finite values (and
            `attention.check_finite` is on).
    """

    def __init__(self, config: AttentionEncoderConfig):
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        # `AttentionEncoderConfig.build` sees to these.
        assert config.tokenizer_config is not None
        assert config.observation_space is not None
        attention = config.attention
        prev_inputs = PrevInputs(
            config.action_space, attention.prev_actions, attention.prev_rewards
        )
        options = attention.for_path(windowed=config.windowed)
        self.embedding = Embedding(
            config.tokenizer_config,
            prev_inputs,
            attention.dim,
            token_size=options.token_size,
            check_finite=attention.check_finite,
        )
        self.transformer = Transformer(
            dim=attention.dim,
            num_layers=attention.num_layers,
            num_heads=attention.num_heads,
            head_size=attention.head_size,
            window=attention.window,
            dilation=attention.dilation,
            ffn_dim=attention.ffn_dim,
            position=options.position,
            gate=attention.gate,
            gate_bias=attention.gate_bias,
            dropout=options.dropout,
            start_embedding=options.start_embedding,
            ffn_gain=_FFN_GAIN if options.token_size else 1.0,
        )
        self._obs_shape = tuple(config.observation_space.shape or ())
        self._cache: StepCache | None = None
        self._is_copy = False
        self._is_training_pass = False
        self._compiled: Pass | None = None

    @property
    def prev_inputs(self) -> PrevInputs:
        """What the encoder reads of previous actions and rewards."""
        return self.embedding.prev_inputs

    @property
    def is_target(self) -> bool:
        """Whether this is a target network: a copy of which nothing is trained."""
        return self._is_copy and not self._weights.require_grad()

    @functools.cached_property
    def _weights(self) -> Weights:
        return Weights(self)

    @functools.cached_property
    def _known_outputs(self) -> KnownOutputs:
        return KnownOutputs(self._weights)

    def get_initial_state(self) -> dict[str, Tensor]:
        """Returns an empty context for one row, or nothing for a `windowed` encoder."""
        if self.config.windowed:
            return {}
        context = self.config.attention.context_len
        dtype = _torch_dtype(self.config.observation_space.dtype)
        prev = self.prev_inputs
        rows = torch.from_numpy(prev.none).expand(context + max(0, prev.depth - 1), -1)
        return ChunkContext(
            context=torch.zeros((context, *self._obs_shape), dtype=dtype),
            context_length=torch.tensor(0),
            prev=rows.clone() if prev.size else None,
        ).to_state()

    def attach(self, cache: StepCache, name: str) -> None:
        """Connects the encoder to a runner's memory; `RolloutMemory` calls this.

        Args:
            cache: Computes rollout steps.
            name: What errors call this module.
        """
        self.embedding.name = name
        self._cache = cache

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles what training passes compute, into one graph for batches of all shapes.

        Layouts stay the host's work. Rollouts stay as they are: each of their steps is a few small
        kernels on a cache. Numbers differ by float32's rounding.

        Args:
            *args: As for `torch.compile`.
            **kwargs: As for `torch.compile`; graphs are whole by default.
        """
        kind = self.config.attention, self.config.windowed, self._obs_shape
        self._compiled = compiled_pass(kind, *args, **kwargs)

    def train(self, mode: bool = True) -> "AttentionEncoder":
        """Announces a training pass: dropout acts in the next pass that records gradients.

        `TorchRLModule.forward_train` calls this first, while value passes (GAE, bootstraps) call
        the encoder again without it.
        """
        self._is_training_pass = mode
        # RLlib switches twice in every rollout step; walking the whole tree takes a third of it.
        return self if mode == self.training else super().train(mode)

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        obs, state = inputs[Columns.OBS], read_state(inputs.get(Columns.STATE_IN))
        if isinstance(state, RolloutStep):
            return {ENCODER_OUT: self._forward_step(obs, state)}
        if isinstance(state, ChunkContext):
            return self._forward_chunks(inputs, state)
        if self.config.windowed and inputs.get(Columns.STATE_IN) is None:
            return {ENCODER_OUT: self._forward_windows(obs)}
        raise ValueError(self._missing_context(inputs.get(Columns.STATE_IN)))

    def _takes_dropout(self) -> bool:
        """Returns whether this is the training pass that was announced, and takes it."""
        drops, self._is_training_pass = self._may_drop(), False
        return drops

    def _may_drop(self) -> bool:
        return self._is_training_pass and torch.is_grad_enabled() and not self.is_target

    def _forward_chunks(self, inputs: dict, state: ChunkContext) -> dict:
        """Chunks (B, T, *obs) with their context → (B, T, D)."""
        obs = inputs[Columns.OBS]
        check_chunks(obs, state, self._obs_shape, self.config.attention, self.prev_inputs)
        by_hand = state.chunk_length is None
        prev = rows_by_hand(inputs, state, self.prev_inputs) if by_hand else state.prev
        rows = torch.cat((state.context.to(obs.dtype), obs), dim=1)
        layout = chunk_layout(obs, state)
        carried = None if prev is None else layout.pack(self.prev_inputs.stack(prev))
        steps = layout.pack(rows)
        if isinstance(state.context_length, Tensor):  # not from the learner connector
            self.embedding.check(steps)
        views = self.transformer.views(layout, uniform=self._compiled is not None)
        out = self._run(steps, carried, views, self._takes_dropout())
        result: dict[str, Any] = {ENCODER_OUT: layout.unpack(out)}
        if by_hand:
            result[Columns.STATE_OUT] = state.after(rows, prev).to_state()
        return result

    def _forward_windows(self, packed: Tensor) -> Tensor:
        """Packed windows (B, C + 1, P), or a stream of runs in rows (B, K, P) → (B, D)."""
        plain = packed.as_subclass(Tensor)
        obs, prev, tags = unpack_tokens(plain, self._obs_shape, self.prev_inputs.size)
        layout = read_layout(packed, tags)
        if known_tags(packed) is None:  # not from the learner connector
            self.embedding.check(obs.flatten(0, 1))
        # All passes over current observations are training; next ones make targets.
        dropout = self._may_drop() and not layout.is_next

        encode = functools.partial(self._encode_windows, obs, prev, tags, layout, dropout)
        is_random = self.embedding.is_random or (dropout and self.transformer.dropout > 0)
        return encode() if is_random else self._known_outputs.of(packed, encode)

    def _encode_windows(
        self,
        obs: Tensor,
        prev: Tensor,
        tags: Tensor,
        layout: RunLayout | WindowLayout,
        dropout: bool,
    ) -> Tensor:
        uniform = self._compiled is not None
        if isinstance(layout, WindowLayout):
            read, rows_views = self.transformer.rows_views(tags > 0, 1, uniform=uniform)
            if read is not None:
                obs, prev = obs.index_select(1, read), prev.index_select(1, read)
            row_size, obs, prev = obs.shape[1], obs.flatten(0, 1), prev.flatten(0, 1)
            return self._run(obs, prev, rows_views, dropout, row_size).squeeze(1)
        obs, prev = obs.flatten(0, 1), prev.flatten(0, 1)
        if layout.tokens is not None:
            obs, prev = obs.index_select(0, layout.tokens), prev.index_select(0, layout.tokens)
        views = self.transformer.views(layout.packed, uniform=uniform)
        out = self._run(obs, prev, views, dropout)
        return out if layout.outputs is None else out.index_select(0, layout.outputs)

    def _run(
        self,
        obs: Tensor,
        prev: Tensor | None,
        views: Sequence[View],
        dropout: bool,
        row_size: int | None = None,
    ) -> Tensor:
        run = self._compiled or run_pass
        dropout = dropout and self.transformer.dropout > 0
        return run(self.embedding, self.transformer, obs, prev, views, dropout, row_size)

    @torch.no_grad()
    def _forward_step(self, obs: Tensor, step: RolloutStep) -> Tensor:
        """One step (B, *obs) or, beside RNN modules, (B, 1, *obs) → (B, D) or (B, 1, D)."""
        if self._cache is None:
            raise ValueError(
                "A rollout handle reached an encoder without a history: the env-to-module "
                "connector of `use_attention(config)` did not see this module. Call it last."
            )
        has_time = obs.dim() == len(self._obs_shape) + 2
        out = self._cache.forward(obs.squeeze(1) if has_time else obs, step)
        return out.unsqueeze(1) if has_time else out

    def _missing_context(self, state: Any) -> str:
        by_hand = (
            "`state_in` as from `module.get_initial_state()` and the last `state_out`"
            if not self.config.windowed
            else "RLlib's connectors, since this module's algorithm hands over no state"
        )
        return (
            f"AttentionEncoder needs the context of each observation: {by_hand}. Got `state_in` "
            f"{state if state is None else sorted(state)}. If this is a training run, something "
            "removed the connectors of `use_attention(config)`: call it last."
        )

    def __deepcopy__(self, memo: dict) -> "AttentionEncoder":
        """Copies the encoder as RLlib copies a network for its target: without the cache."""
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__ = {
            key: copy.deepcopy(value, memo) for key, value in self.__getstate__().items()
        }
        new._is_copy = True
        return new

    def __getstate__(self) -> dict:
        """Leaves out what is not to be copied or pickled."""
        return {
            key: value for key, value in self.__dict__.items() if key not in _OF_THIS_ENCODER
        } | {"_cache": None, "_compiled": None}


def _torch_dtype(dtype: Any) -> torch.dtype:
    """Returns the type in which RLlib's `NumpyToTensor` hands over an array of this type."""
    converted = torch.from_numpy(np.zeros((), dtype)).dtype
    return torch.float32 if converted.is_floating_point else converted
