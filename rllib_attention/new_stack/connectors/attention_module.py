"""Finds the attention encoders inside RLModules."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.models.base import CRITIC
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import BatchedNdArray
from ray.rllib.utils.typing import EpisodeType
from torch import nn

from rllib_attention.config import DEFAULT_CHUNK, AttentionConfig
from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.prev_inputs import PrevInputs


@dataclass(frozen=True)
class AttentionModule:
    """What the connectors need to know of one RLModule.

    Attributes:
        encoders: Its attention encoders, all with the same options.
        max_seq_len: Its chunk length T in training.
        nests_state: Whether RLlib reads the critic's state below its own key.
    """

    encoders: tuple[AttentionEncoder, ...]
    max_seq_len: int
    nests_state: bool

    @property
    def attention(self) -> AttentionConfig:
        """The encoders' options."""
        return self.encoders[0].config.attention

    @property
    def windowed(self) -> bool:
        """Whether training observations are windows (`window.py`)."""
        return self.encoders[0].config.windowed

    @property
    def prev_inputs(self) -> PrevInputs:
        """Encodes the module's previous actions and rewards."""
        return self.encoders[0].prev_inputs

    def state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Nests a `STATE_IN` as RLlib's `compute_values` expects it."""
        return {CRITIC: state} if self.nests_state else state


_found: "weakref.WeakKeyDictionary[RLModule, AttentionModule | None]" = weakref.WeakKeyDictionary()


def attention_module(module: RLModule, module_id: str | None = None) -> AttentionModule | None:
    """Returns what there is to know of a module with attention, None for one without.

    Args:
        module: An RLModule, or a MultiRLModule.
        module_id: Which of a MultiRLModule's; None for the only one.
    """
    if isinstance(module, MultiRLModule):
        if module_id is None:
            module_id = next(iter(module.keys()))
        module = module[module_id]
    module = getattr(module, "unwrapped", lambda: module)()
    if module not in _found:
        _found[module] = _inspect(module)
    return _found[module]


def _inspect(module: RLModule) -> AttentionModule | None:
    parts = module.modules() if isinstance(module, nn.Module) else ()
    encoders = tuple(m for m in parts if isinstance(m, AttentionEncoder))
    if not encoders:
        return None
    max_seq_len = (
        module.model_config.get("max_seq_len")
        or encoders[0].config.attention.max_seq_len
        or DEFAULT_CHUNK
    )
    return AttentionModule(encoders, max_seq_len, CRITIC in module.get_initial_state())


def has_other_stateful(rl_module: MultiRLModule) -> bool:
    """Returns whether some module is stateful without attention, as with RLlib's LSTM."""
    return any(
        module.is_stateful() and attention_module(rl_module, module_id) is None
        for module_id, module in rl_module.items()
    )


def run_pieces(pieces: Iterable[ConnectorV2], *, batch: dict[str, Any], **kwargs: Any) -> dict:
    """Runs RLlib's own pieces, with what RLlib hands to `ConnectorV2.__call__`."""
    for piece in pieces:
        batch = piece(batch=batch, **kwargs)
    return batch


def replace_batch_items(
    batch: dict[str, Any], column: str, items: list[tuple[SingleAgentEpisode, Any]]
) -> None:
    """Like `ConnectorV2.add_batch_item`, but takes the place of what the episodes have there.

    Args:
        batch: Changed in place.
        column: Its column.
        items: Episodes with their new items. Several samples of one agent's episode share a key;
            they keep their order.
    """
    column_data = batch.setdefault(column, {})
    for episode, _ in items:  # in order: rows of all columns must correspond
        column_data[batch_key(episode)] = []
    for episode, item in items:
        column_data[batch_key(episode)].append(item)


def as_rows(rows: Any) -> Any:
    """Marks arrays as batches of rows for RLlib's `BatchIndividualItems`."""
    if isinstance(rows, dict):
        return {key: as_rows(value) for key, value in rows.items()}
    return rows.view(BatchedNdArray)


def batch_key(episode: SingleAgentEpisode) -> tuple:
    """Returns the key under which RLlib's connectors keep an episode's items.

    Args:
        episode: A single-agent episode, or an agent's.
    """
    if episode.agent_id is None:
        return (episode.id_,)
    return (episode.multi_agent_episode_id, episode.agent_id, episode.module_id)


def episodes_with_attention(
    piece: ConnectorV2, episodes: list[EpisodeType], rl_module: RLModule
) -> Iterator[tuple[SingleAgentEpisode, AttentionModule]]:
    """Yields the episodes, or agents' episodes, in which a module with attention acts."""
    for episode in piece.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
        module = attention_module(rl_module, episode.module_id)
        if module is not None and len(episode):
            yield episode, module
