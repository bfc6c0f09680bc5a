"""Tells those who wait for changes that there are some: LISTEN and NOTIFY, a channel per history.

Who writes tells in the transaction that stores, so whoever hears it sees the changes. Who waits
must not rely on it: a pooler, or a writer that dies, may swallow a notice.
"""

import hashlib
import selectors
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.errors import SetupError

LONGEST_WAIT: Final = 15.0
"""Seconds after which one looks without having been told. Only a safety net: a session pooler may
have lost the notice, or a process died that held others up without changing anything itself."""

_LONGEST_NAME: Final = 63


def channel(schema: str) -> str:
    """The channel of the history in this schema; others in the same database have their own."""
    name = f"bemi.{schema}"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"bemi.{hashlib.sha256(schema.encode()).hexdigest()[:32]}"
    return name


def tell(conn: psycopg.Connection[Any], schema: str) -> None:
    """In the transaction that is open: something may go on that waited for it."""
    conn.execute("select pg_notify(%s, '')", [channel(schema)])


class Listener:
    """Waits for notices on a connection in autocommit that nothing else uses meanwhile.

    Listens only from `start` to `stop`: a session that listens and reads nothing would fill the
    server's queue of notices in time, and then those who write could not any more.
    """

    def __init__(self, conn: psycopg.Connection[Any], schema: str) -> None:
        self._conn = conn
        self._channel = sql.Identifier(channel(schema))
        self.started = False

    def start(self) -> None:
        """What is stored from here on is told. Raises `SetupError` on a standby."""
        try:
            self._conn.execute(sql.SQL("listen {}").format(self._channel))
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise SetupError(
                "the destination is a standby, where nobody is told of changes",
                fix="stream from the primary; a standby answers questions, as `bemi changes` does",
            ) from error
        self.started = True

    def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self.started:
            self.started = False
            self._conn.execute(sql.SQL("unlisten {}").format(self._channel))

    def wait(self, seconds: float, *, wake: int | None = None) -> None:
        """Until something is told, time is up, or the file descriptor `wake` can be read."""
        if self._told():
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._conn.fileno(), selectors.EVENT_READ)
            if wake is not None:
                selector.register(wake, selectors.EVENT_READ)
            selector.select(max(seconds, 0.0))
        self._told()

    def _told(self) -> bool:
        return bool([*self._conn.notifies(timeout=0)])
