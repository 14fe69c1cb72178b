"""One encoder's KV cache over a runner's history: checked against the weights, rebuilt by itself.

Shapes: B batch, C context, D embed dim.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.embedding import Embedding
from rllib_attention.encoder.inputs import RolloutStep
from rllib_attention.encoder.rollout_history import RolloutHistory
from rllib_attention.encoder.weights import Weights
from rllib_attention.nn import KVCache, Stepper, Transformer


class StepCache(Protocol):
    """What computes an encoder's rollout steps."""

    def forward(self, obs: Tensor, step: RolloutStep) -> Tensor:
        """Computes the current step, (B, *obs) → (B, D)."""
        ...


class RolloutCache:
    """Computes one step of each row from cached keys and values.

    RLlib builds a runner's next batch before a weight sync and uses it after
    (`SingleAgentEnvRunner._sample`), so whether the cache fits the weights is decided here, in
    the forward pass. A slot whose keys and values are not those of the current weights, up to the
    step before, is filled anew from its raw history. `Weights.fingerprint` says what
    cannot be seen.

    Args:
        embedding: The encoder's way from inputs to tokens.
        transformer: The encoder's stack.
        attention: The encoder's options.
        history: The runner's raw inputs.
    """

    def __init__(
        self,
        embedding: Embedding,
        transformer: Transformer,
        attention: AttentionConfig,
        history: RolloutHistory,
    ):
        self.embedding, self.transformer = embedding, transformer
        self.attention, self.history = attention, history
        self._weights = Weights(embedding, transformer)
        self._kv: KVCache | None = None
        self._stepper: Stepper | None = None
        self._fingerprint: tuple = ()
        self._next = np.zeros(0, np.int64)  # the step that each slot's keys and values reach
        self._tenants = np.zeros(0, np.int64)  # whose keys and values they are

    def forward(self, obs: Tensor, step: RolloutStep) -> Tensor:
        """Computes the current step.

        Args:
            obs: (B, *obs).
            step: Slot and time step of each row, and what it carries.

        Returns:
            (B, D).

        Raises:
            RuntimeError: If the history does not stand at these steps.
        """
        slots, steps = step.handle.cpu().numpy().T
        self._check(slots, steps)
        kv = self._fresh(step.handle.device)
        starts, tenants = self.history.starts[slots], self.history.tenants[slots]
        is_current = (self._next[slots] == steps) & (self._tenants[slots] == tenants)
        behind = ~is_current & (steps > starts)
        if behind.any():
            self._rebuild(kv, slots[behind], steps[behind], starts[behind])
        self.embedding.check(obs)
        tokens = self.embedding(obs, step.prev)
        assert self._stepper is not None  # made with the cache
        out = self._stepper.step(tokens, kv, slots, steps, starts)
        self._next[slots], self._tenants[slots] = steps + 1, tenants
        return out

    def _check(self, slots: np.ndarray, steps: np.ndarray) -> None:
        if not np.array_equal(self.history.steps[slots], steps):
            raise RuntimeError(
                f"The rollout history stands at steps {self.history.steps[slots].tolist()}, the "
                f"batch at {steps.tolist()}: the batch was not built by the latest call of the "
                "env-to-module connector. Leave the pipeline of `use_attention(config)` as it is, "
                "or act by hand with `module.get_initial_state()`."
            )

    def _fresh(self, device: torch.device) -> KVCache:
        """Returns the cache; an empty one if the weights, the slots or the device changed."""
        fingerprint = (device, *self._weights.fingerprint())
        is_known = fingerprint == self._fingerprint and len(self._next) == self.history.num_slots
        if self._kv is not None and is_known:
            return self._kv
        self._fingerprint = fingerprint
        self._next = np.full(self.history.num_slots, -1)
        self._tenants = np.zeros(self.history.num_slots, np.int64)
        self._stepper = Stepper(self.transformer)
        self._kv = KVCache(
            strides=self.transformer.strides,
            num_slots=self.history.num_slots,
            num_heads=self.attention.num_heads,
            head_size=self.attention.head_size,
            window=self.attention.window,
            device=device,
            dtype=self.embedding.input.weight.dtype,
            distance_bias=self.transformer.distance_bias,
        )
        return self._kv

    def _rebuild(
        self, kv: KVCache, slots: np.ndarray, steps: np.ndarray, starts: np.ndarray
    ) -> None:
        """Fills keys and values of some slots from their raw inputs."""
        length = min(self.attention.context_len, int((steps - starts).max()))
        if not length:
            return
        obs, rows = self.history.context(slots, steps, length)
        valid = steps[:, None] + np.arange(-length, 0) >= starts[:, None]
        prev = self.history.prev_inputs.stack(rows)[valid] if rows.shape[-1] else None
        tokens = self._tokens(obs[valid], prev)
        self.transformer.prefill(tokens, valid.sum(axis=1), kv, slots, steps)

    def _tokens(self, obs: np.ndarray, prev: np.ndarray | None) -> Tensor:
        device = self.embedding.input.weight.device
        carried = None if prev is None else torch.from_numpy(prev).to(device)
        steps = torch.from_numpy(obs).to(device)
        self.embedding.check(steps)
        return self.embedding(steps, carried)
