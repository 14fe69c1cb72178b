"""The package's loggers, which users see without setting up logging.

RLlib shows warnings only, and Python's root logger does the same; Ray itself shows what is INFO. So
does this package, in Ray's format. `logging.getLogger("rllib_attention").setLevel(...)` changes it.
"""

import logging

_ROOT = "rllib_attention"
_FORMAT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"


class FallbackHandler(logging.StreamHandler):
    """Writes to stderr, but only where the user's own logging has no handler to do so."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record.

        Args:
            record: What was logged.
        """
        if not logging.getLogger().handlers:
            super().emit(record)


def get_logger(name: str) -> logging.Logger:
    """Returns a logger of this package.

    Args:
        name: The module's `__name__`.
    """
    package = logging.getLogger(_ROOT)
    if not package.handlers:
        handler = FallbackHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        package.addHandler(handler)
    if package.level == logging.NOTSET:
        package.setLevel(logging.INFO)
    return logging.getLogger(name)
