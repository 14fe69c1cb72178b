"""One encoder's KV cache over a runner's history: checked against the weights, rebuilt by itself.

Shapes: B batch, C context, D embed dim.
"""

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.rollout_history import RolloutHistory
from rllib_attention.nn import KVCache, Stepper

if TYPE_CHECKING:
    from rllib_attention.encoder.encoder import AttentionEncoder

_unversioned = itertools.count(start=-1, step=-1)


class RolloutCache:
    """Computes one step of each row from cached keys and values.

    RLlib builds a runner's next batch before a weight sync and uses it after
    (`SingleAgentEnvRunner._sample`), so whether the cache fits the weights is decided here, in
    the forward pass. A slot whose keys and values are not those of the current weights, up to the
    step before, is filled anew from its raw history. What cannot be seen are writes through
    `parameter.data` in place, which torch does not count: use `torch.no_grad()` instead.

    Args:
        history: The runner's raw inputs.
        attention: The encoder's options.
    """

    def __init__(self, history: RolloutHistory, attention: AttentionConfig):
        self.history, self.attention = history, attention
        self._kv: KVCache | None = None
        self._stepper: Stepper | None = None
        self._weights: tuple = ()
        self._owners: list[dict[str, nn.Parameter | None]] | None = None
        self._next = np.zeros(0, np.int64)  # the step that each slot's keys and values reach
        self._tenants = np.zeros(0, np.int64)  # whose keys and values they are

    def forward(
        self, encoder: "AttentionEncoder", obs: Tensor, features: Tensor | None, handle: Tensor
    ) -> Tensor:
        """Computes the current step.

        Args:
            encoder: The encoder whose cache this is.
            obs: (B, *obs).
            features: (B, F), or None.
            handle: Slot and time step of each row, (B, 2).

        Returns:
            (B, D).

        Raises:
            RuntimeError: If the history does not stand at these steps.
        """
        slots, steps = handle.cpu().numpy().T
        self._check(slots, steps)
        kv = self._fresh(encoder, handle.device)
        starts, tenants = self.history.starts[slots], self.history.tenants[slots]
        is_current = (self._next[slots] == steps) & (self._tenants[slots] == tenants)
        behind = ~is_current & (steps > starts)
        if behind.any():
            self._rebuild(encoder, kv, slots[behind], steps[behind], starts[behind])
        tokens = encoder.embed(obs, features)
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

    def _fresh(self, encoder: "AttentionEncoder", device: torch.device) -> KVCache:
        """Returns the cache; an empty one if the weights, the slots or the device changed."""
        if self._owners is None:
            self._owners = [m._parameters for m in encoder.modules() if m._parameters]
        weights = (device, *_fingerprint(self._owners))
        is_known = weights == self._weights and len(self._next) == self.history.num_slots
        if self._kv is not None and is_known:
            return self._kv
        self._weights = weights
        self._next = np.full(self.history.num_slots, -1)
        self._tenants = np.zeros(self.history.num_slots, np.int64)
        self._stepper = Stepper(encoder.transformer)
        self._kv = KVCache(
            num_layers=self.attention.num_layers,
            num_slots=self.history.num_slots,
            num_heads=self.attention.num_heads,
            head_size=self.attention.head_size,
            window=self.attention.window,
            device=device,
            dtype=encoder.input.weight.dtype,
        )
        return self._kv

    def _rebuild(
        self,
        encoder: "AttentionEncoder",
        kv: KVCache,
        slots: np.ndarray,
        steps: np.ndarray,
        starts: np.ndarray,
    ) -> None:
        """Fills keys and values of some slots from their raw inputs."""
        length = min(self.attention.context_len, int((steps - starts).max()))
        if not length:
            return
        device = encoder.input.weight.device
        obs, features = self.history.context(slots, steps, length)
        valid = torch.from_numpy(steps[:, None] + np.arange(-length, 0) >= starts[:, None])
        index = valid.flatten().nonzero().squeeze(1)
        flat_obs = torch.from_numpy(obs).flatten(0, 1)[index].to(device)
        flat_features = torch.from_numpy(features).flatten(0, 1)[index].to(device)
        tokens = encoder.embed(flat_obs, flat_features)
        rows = tokens.new_zeros(valid.numel(), tokens.shape[-1])
        rows = rows.index_copy(0, index.to(device), tokens).unflatten(0, valid.shape)
        encoder.transformer.prefill(rows, kv, slots, steps, starts)


def _fingerprint(owners: list[dict[str, nn.Parameter | None]]) -> list[int]:
    """Returns what changes when a weight is written (version), moved or replaced (address, id)."""
    parameters = [p for owner in owners for p in owner.values() if p is not None]
    try:
        versions = [p._version for p in parameters]
    except RuntimeError:
        # Tensors made under inference mode have no version: never equal, so never reused.
        versions = [next(_unversioned)]
    return [*versions, *map(id, parameters), *[p.data_ptr() for p in parameters]]
