"""What the connectors need to know of an RLModule with attention."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.typing import EpisodeType
from torch import nn

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.actor_critic import AttentionActorCriticEncoder
from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.finite import check_finite
from rllib_attention.encoder.inputs import nested
from rllib_attention.encoder.prev_inputs import PrevInputs


@dataclass(frozen=True)
class AttentionModule:
    """What the connectors need to know of one RLModule.

    Attributes:
        encoders: Its attention encoders, all with the same options; the acting one first.
        max_seq_len: Its chunk length T in training.
        nests_state: Whether RLlib reads the critic's state below its own key.
        observation_path: The keys that lead from the module's observations to the encoders'.
        name: What errors call it.
    """

    encoders: tuple[AttentionEncoder, ...]
    max_seq_len: int
    nests_state: bool
    observation_path: tuple[Any, ...]
    name: str = "the RLModule"

    @property
    def attention(self) -> AttentionConfig:
        """The encoders' options."""
        return self.encoders[0].config.attention

    @property
    def windowed(self) -> bool:
        """Whether training observations are windows (`packed_window.py`)."""
        return self.encoders[0].config.windowed

    @property
    def prev_inputs(self) -> PrevInputs:
        """What the encoders read of previous actions and rewards."""
        return self.encoders[0].prev_inputs

    def state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Nests a `STATE_IN` as RLlib's `compute_values` expects it."""
        return nested(state) if self.nests_state else state

    def observation(self, obs: Any) -> Any:
        """Returns the part of an observation (or of a batch of them) that the encoders read."""
        for key in self.observation_path:
            obs = obs[key]
        return obs

    def check_finite(self, obs: np.ndarray, where: Callable[[int], str]) -> None:
        """Checks what the encoders will read, so that they need not wait for it on a device.

        Args:
            obs: From `observation`, (N, ...).
            where: Says which step one of them is of, by its index.

        Raises:
            ValueError: If one is not finite, unless the options' `check_finite` is off.
        """
        if self.attention.check_finite:
            check_finite(obs, self.name, where)


# Each module's attention encoders, and whether it nests states. Walking a module takes longer than
# building a small batch, and its parts stay the same.
_parts: WeakKeyDictionary[nn.Module, tuple[tuple[AttentionEncoder, ...], bool]]
_parts = WeakKeyDictionary()


def _parts_of(module: nn.Module) -> tuple[tuple[AttentionEncoder, ...], bool]:
    if module not in _parts:
        parts = list(module.modules())
        nests = any(isinstance(p, AttentionActorCriticEncoder) and p.nests_state for p in parts)
        _parts[module] = tuple(p for p in parts if isinstance(p, AttentionEncoder)), nests
    return _parts[module]


def inspect_module(module: RLModule) -> AttentionModule | None:
    """Returns what there is to know of a module with attention, None for one without.

    Args:
        module: An RLModule of one agent.

    Raises:
        ValueError: If the module's `model_config` has no `max_seq_len`, or it is not clear which
            part of its observations its encoders read.
    """
    module = getattr(module, "unwrapped", lambda: module)()
    encoders, nests_state = _parts_of(module) if isinstance(module, nn.Module) else ((), False)
    if not encoders:
        return None
    max_seq_len = module.model_config.get("max_seq_len")
    if max_seq_len is None:
        raise ValueError(
            "A module with attention needs the length of its training chunks, which RLlib reads "
            f"from `model_config['max_seq_len']`, too; got {sorted(module.model_config)}. Fix: "
            '`config.rl_module(model_config={"max_seq_len": 64})`.'
        )
    return AttentionModule(
        encoders,
        max_seq_len,
        nests_state,
        _observation_path(module.observation_space, encoders[0].config.observation_space),
    )


def find_attention(rl_module: RLModule) -> dict[str | None, AttentionModule]:
    """Returns the modules with attention by their id; by None where there is but one module.

    Args:
        rl_module: An RLModule, or a MultiRLModule.
    """
    if not isinstance(rl_module, MultiRLModule):
        only = inspect_module(rl_module)
        return {} if only is None else {None: only}
    modules = {module_id: inspect_module(module) for module_id, module in rl_module.items()}
    found: dict[str | None, AttentionModule] = {
        module_id: dataclasses.replace(module, name=f"RLModule {module_id!r}")
        for module_id, module in modules.items()
        if module is not None
    }
    if DEFAULT_MODULE_ID in found:  # single-agent episodes name no module
        found[None] = found[DEFAULT_MODULE_ID]
    return found


def has_other_stateful(
    rl_module: MultiRLModule, known: Mapping[str | None, AttentionModule]
) -> bool:
    """Returns whether some module is stateful without attention, as with RLlib's LSTM.

    Args:
        rl_module: All modules.
        known: Those with attention.
    """
    return any(
        module_id not in known and module.is_stateful() for module_id, module in rl_module.items()
    )


def episodes_with_attention(
    piece: ConnectorV2,
    episodes: list[EpisodeType],
    known: Mapping[str | None, AttentionModule],
) -> Iterator[tuple[SingleAgentEpisode, AttentionModule]]:
    """Yields the episodes, or agents' episodes, in which a module with attention acts.

    Args:
        piece: The piece that asks.
        episodes: What the piece was given.
        known: From `find_attention`.
    """
    for episode in piece.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
        module = known.get(episode.module_id)
        if module is not None and len(episode):
            yield episode, module


def _observation_path(space: gym.Space, wanted: gym.Space) -> tuple[Any, ...]:
    """Returns the keys from a space to the part that an encoder reads.

    A module may take its observations apart before it calls its encoder, as RLlib's
    `ActionMaskingTorchRLModule` does.
    """
    if not isinstance(space, gym.spaces.Dict):
        return ()
    leaves = list(_leaves(space))
    same = [path for path, leaf in leaves if leaf is wanted]
    same = same or [path for path, leaf in leaves if leaf == wanted]
    if len(same) != 1:
        raise ValueError(
            f"Attention reads observations of {wanted}, which must be one entry of the module's "
            f"observation space, got {len(same)} such entries in {space}. Fix: build the encoder "
            "with the entry itself, `observation_space=self.observation_space['observations']`, "
            "or flatten the observations by RLlib's FlattenObservations."
        )
    return same[0]


def _leaves(space: gym.Space) -> Iterator[tuple[tuple[Any, ...], gym.Space]]:
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.items():
            yield from (((key, *path), leaf) for path, leaf in _leaves(part))
    else:
        yield (), space
