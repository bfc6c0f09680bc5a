"""What the functions of the destination refuse, as Bemi's own errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from bemi.errors import BemiError, NotYetError, UnknownStateError, UsageError

_ERRORS: Final[dict[str | None, type[BemiError]]] = {
    "TT001": UnknownStateError,
    "TT002": UsageError,
    "TT003": NotYetError,
}
"""By the codes that `0006_states.sql` raises."""


@contextmanager
def told() -> Iterator[None]:
    """Raises `UnknownStateError`, `NotYetError` and `UsageError`, with the server's words."""
    try:
        yield
    except psycopg.Error as error:
        kind = _ERRORS.get(error.sqlstate)
        if kind is None:
            raise
        message = error.diag.message_primary or str(error)
        raise kind(message, fix=error.diag.message_hint) from error
