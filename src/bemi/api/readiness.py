"""Whether the history can be read just now."""

import threading
import time
from typing import Final

from bemi.api.archive import Archive
from bemi.errors import BemiError
from bemi.store.schema_version import require_current

_LASTS: Final = 1.0
"""Seconds for which an answer of the destination is good: anybody may ask."""


class Readiness:
    """Whether the destination could be read, as it was a second ago at most."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._error: BemiError | None = None

    def error(self) -> BemiError | None:
        with self._lock:
            if time.monotonic() - self._looked > _LASTS:
                try:
                    with self._archive.connected() as conn:
                        require_current(conn, self._archive.schema)
                    self._error = None
                except BemiError as error:
                    self._error = error
                self._looked = time.monotonic()
            return self._error
