"""How often something may happen."""


class Rate:
    """Lets so much through in a second; a pause saves up no more than that.

    Args:
        per_second: How many.
        now: The time in seconds.
    """

    def __init__(self, per_second: float, now: float):
        self._per_second, self._last = per_second, now
        self._left = max(1.0, per_second)

    def lets(self, now: float) -> bool:
        """Returns whether one more may happen now, and counts it if so.

        Args:
            now: The time in seconds.
        """
        saved = (now - self._last) * self._per_second
        self._left = min(max(1.0, self._per_second), self._left + saved)
        self._last = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
