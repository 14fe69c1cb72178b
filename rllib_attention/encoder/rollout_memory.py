"""All that a runner remembers of the episodes in which one module acts."""

from collections.abc import Sequence

from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.rollout_cache import RolloutCache
from rllib_attention.encoder.rollout_history import RolloutHistory
from rllib_attention.encoder.rollout_slots import RolloutSlots


class RolloutMemory:
    """Slots of running episodes, their raw history, and each encoder's cache over it.

    Args:
        encoders: A module's attention encoders, all with the same options.
        name: What errors call the module.

    Attributes:
        slots: Which episode has which slot.
        history: The raw inputs.
    """

    def __init__(self, encoders: Sequence[AttentionEncoder], name: str):
        first = encoders[0]
        self.slots = RolloutSlots()
        self.history = RolloutHistory(first.config.attention.context_len, first.prev_inputs)
        self._attach(encoders, name)

    def taken_over(self, encoders: Sequence[AttentionEncoder], name: str) -> "RolloutMemory":
        """Returns the memory for encoders that take the place of the present ones.

        Args:
            encoders: As for the class.
            name: As for the class.

        Returns:
            This memory if the encoders look as far back and read the same inputs, else a new one.
        """
        context_len, prev = encoders[0].config.attention.context_len, encoders[0].prev_inputs
        if not self.history.fits(context_len, prev):
            return RolloutMemory(encoders, name)
        self._attach(encoders, name)
        return self

    def _attach(self, encoders: Sequence[AttentionEncoder], name: str) -> None:
        for encoder in encoders:
            cache = RolloutCache(
                encoder.embedding, encoder.transformer, encoder.config.attention, self.history
            )
            encoder.attach(cache, name)
