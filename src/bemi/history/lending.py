"""The connections of a `History`: one for each question that is being answered.

Changes are read as they are taken, and in between something else may be asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from bemi.connections import connect, explained
from bemi.store.schema_version import require_current


class Connections:
    """To the destination, opened when one is asked for, and kept for the next question."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema
        self.idle: list[psycopg.Connection[Any]] = []
        self._busy: set[psycopg.Connection[Any]] = set()

    def close(self) -> None:
        """Ends all, also those that are lent."""
        for conn in (*self.idle, *self._busy):
            conn.close()
        self.idle.clear()
        self._busy.clear()

    @contextmanager
    def lent(self) -> Iterator[psycopg.Connection[Any]]:
        """One that nobody else has. Raises `BemiError`."""
        with explained("destination"):
            conn = self.idle.pop() if self.idle else self._connect()
            self._busy.add(conn)
            try:
                yield conn
            finally:
                self._busy.discard(conn)
                if conn.info.transaction_status == TransactionStatus.IDLE:
                    self.idle.append(conn)
                else:
                    conn.close()

    def _connect(self) -> psycopg.Connection[Any]:
        conn = connect(self._url, what="destination", client_encoding="utf8")
        try:
            require_current(conn, self._schema)
        except BaseException:
            conn.close()
            raise
        return conn
