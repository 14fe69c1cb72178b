"""How connector pieces put items of episodes into RLlib's batches."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import BatchedNdArray


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


def stays_on_host(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers that the host needs, as RLlib's `NumpyToTensor` leaves them: as objects.

    Args:
        numbers: Of any shape.
    """
    return numbers.astype(object)


def batch_key(episode: SingleAgentEpisode) -> tuple:
    """Returns the key under which RLlib's connectors keep an episode's items.

    Args:
        episode: A single-agent episode, or an agent's.
    """
    if episode.agent_id is None:
        return (episode.id_,)
    return (episode.multi_agent_episode_id, episode.agent_id, episode.module_id)
