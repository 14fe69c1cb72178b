"""The tags of packed observations, beside the tensor, where the host can read them at once.

Layouts of replayed runs follow from the tags of their tokens (`run_tags.py`), which travel to the
device within the observations. To read them there, the host would wait until the device has done
all its work. So the learner connector puts them into a column of their own, which stays on the
host, and the learner ties them to the tensors that they describe.

Shapes: B transitions, K tokens in a row, P packed token.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLUMN = "attention_tags"
"""The batch's column of tags: for each column of packed observations, an array for each row."""

_CAT = (torch.cat, torch.concat, torch.concatenate)


@dataclass(frozen=True)
class HostTags:
    """What the host knows of packed observations.

    Attributes:
        tags: Their tags, (B, K).
        origins: The batches that they come from, one for each tensor that was joined.
        version: How often the tensor had been written to.
    """

    tags: np.ndarray
    origins: tuple[object, ...]
    version: int = 0


class TaggedRows(Tensor):
    """Packed observations, (B, K, P), whose tags are known to the host.

    `torch.cat` of such tensors is one, too (DQN puts next observations behind observations). All
    else gives a plain tensor, whose tags are read from the device.
    """

    known: HostTags

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs an operation on the plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if func in _CAT and not result.is_inference():
            return _joined(result, *args, **(kwargs or {}))
        return result


def tag_batch(batch: MutableMapping[str, Any]) -> None:
    """Ties the tags in a train batch to the observations that they describe.

    Args:
        batch: One module's; changed in place. Without tags it stays as it is.
    """
    origin = object()
    for name, rows in batch.get(COLUMN, {}).items():
        packed = batch[name].as_subclass(TaggedRows)
        packed.known = HostTags(np.stack(list(rows)), (origin,), packed._version)
        batch[name] = packed


def tags_column(tags: np.ndarray) -> np.ndarray:
    """Returns tags, (B, K), as a column that RLlib's `NumpyToTensor` leaves on the host, (B,)."""
    column = np.empty(len(tags), object)
    for row, of_row in enumerate(tags):
        column[row] = of_row
    return column


def known_tags(packed: Tensor) -> HostTags | None:
    """Returns what the host knows of packed observations, None if they may have changed since."""
    known = getattr(packed, "known", None) if isinstance(packed, TaggedRows) else None
    return known if known is not None and known.version == packed._version else None


def _joined(result: Tensor, tensors: Any, dim: int = 0, **kwargs: Any) -> Tensor:
    known = [known_tags(tensor) for tensor in tensors]
    found = [tags for tags in known if tags is not None]
    if dim != 0 or kwargs or len(found) < len(known):
        return result
    packed = result.as_subclass(TaggedRows)
    packed.known = HostTags(
        np.concatenate([part.tags for part in found]),
        tuple(origin for part in found for origin in part.origins),
        packed._version,
    )
    return packed
