"""Which running episode has which slot of a runner's history and caches."""

from collections.abc import Iterable


class RolloutSlots:
    """Gives running episodes slots, and takes them back.

    A slot is freed when its episode has ended (one call later: the last step is still computed),
    and when its episode is gone without an end, as after a failure of the environment or a forced
    reset. RLlib shows a runner's connector all running episodes in each call, save in calls about
    ended ones alone (`MultiAgentEnvRunner` runs those on their own). So an episode that is missing
    from a call with any running episode in it is gone.
    """

    def __init__(self) -> None:
        self.num_slots = 0
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._ended: set[str] = set()

    def __getitem__(self, key: str) -> int:
        """Returns the slot of a running episode."""
        return self._slots[key]

    def get(self, key: str) -> int | None:
        """Returns the slot of a running episode, or None."""
        return self._slots.get(key)

    def open(self, key: str) -> int:
        """Gives an episode a slot; the one that it has already, if it has one.

        Args:
            key: The episode's ID.
        """
        if key not in self._slots:
            if not self._free:
                self._grow()
            # The lowest first: it keeps slots in the order of the batch.
            self._free.sort(reverse=True)
            self._slots[key] = self._free.pop()
        return self._slots[key]

    def end(self, key: str) -> None:
        """Notes that an episode has ended; its slot is freed at the next `collect`."""
        self._ended.add(key)

    def collect(self, shown: Iterable[str], *, running: bool) -> None:
        """Frees the slots of ended episodes and of those that are gone.

        Args:
            shown: The episodes of this call.
            running: Whether any of them is still running, so that all running ones are shown.
        """
        gone = self._ended
        if running:
            gone = gone | (self._slots.keys() - set(shown))
        for key in gone & self._slots.keys():
            self._free.append(self._slots.pop(key))
        self._ended = set()

    def _grow(self) -> None:
        """Doubles the slots."""
        old, self.num_slots = self.num_slots, max(1, 2 * self.num_slots)
        self._free.extend(range(old, self.num_slots))
