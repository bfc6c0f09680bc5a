"""What an application is told of contexts that can't be sent: once, and without harm."""

import warnings
from typing import Final

_told: Final[set[str]] = set()


def warn_once(message: str) -> None:
    """Applications have many connections: the first one says it, as a RuntimeWarning.

    Where warnings are errors it is logged: no write may fail because of it.
    """
    if message in _told:
        return
    _told.add(message)
    try:
        warnings.warn(f"bemi: {message}", RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        import logging

        logging.getLogger("bemi").warning("no context is sent: %s", message)
