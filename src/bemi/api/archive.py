"""The destination as the server asks it: connections that are shared, and a history on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg_pool import ConnectionPool

from bemi.connections import connect, conninfo, explained
from bemi.history.history import History
from bemi.store import accesses
from bemi.store.schema_version import require_current

MOST_CONNECTIONS: Final = 30
_PATIENCE: Final = 10.0
"""Seconds to wait for a connection to become free, or to be had."""

# A question that takes longer is given up, and so is an answer that nobody takes.
_LIMITS: Final = (
    "set statement_timeout to '60s'",
    "set idle_in_transaction_session_timeout to '60s'",
    "set datestyle to 'ISO'",
)


class Archive:
    """Where the history is, and the people who may see it. Its connections are lent to threads."""

    def __init__(self, url: str, schema: str) -> None:
        self.url = url
        self.schema = schema
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            conninfo(url, what="destination", application_name="bemi serve"),
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=1,
            max_size=MOST_CONNECTIONS,
            timeout=_PATIENCE,
            configure=_limit,
            check=ConnectionPool.check_connection,
            open=False,
            name="bemi",
        )
        self.history = _Lent(self)

    def __enter__(self) -> Self:
        """Raises `BemiError` where the history can't be had, is of another version, or where it
        can't be recorded who reads it."""
        # Before the pool is open, which would try again and again, and only log what is wrong.
        with connect(self.url, what="destination") as conn, explained("destination"):
            require_current(conn, self.schema)
            accesses.require_recordable(conn, self.schema)
        self._pool.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.close()

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection[Any]]:
        """Raises `PassingError` where none can be had in time."""
        with explained("destination"), self._pool.connection() as conn:
            yield conn

    @contextmanager
    def alone(self) -> Iterator[psycopg.Connection[Any]]:
        """One that is nobody else's, before or after. Raises `BemiError`."""
        with connect(self.url, what="destination") as conn, explained("destination"):
            _limit(conn)
            yield conn


class _Lent(History):
    """Asks on connections of the archive, from any number of threads."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive.url, schema=archive.schema)
        self._archive = archive

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        with self._archive.connected() as conn:
            yield conn


def _limit(conn: psycopg.Connection[Any]) -> None:
    for statement in _LIMITS:
        conn.execute(statement)
