"""Transactions that have committed in the log, and in the stream, while nobody sees them yet.

They wait for a standby that never comes, on a server with these settings; others do not.
"""

import threading
from typing import Final

import psycopg

from tests.support.waiting import until

LATE_COMMITS: Final = {"synchronous_standby_names": "nobody", "synchronous_commit": "local"}


class LateCommit:
    """Such a transaction; `xid` is its id."""

    def __init__(self, url: str, *statements: str) -> None:
        self._url = url
        self._conn = psycopg.connect(url)
        self._conn.execute("set local synchronous_commit to on")
        for statement in statements:
            self._conn.execute(statement.encode())
        row = self._conn.execute("select pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        self.xid = int(row[0])
        self._pid = self._conn.info.backend_pid
        self._thread = threading.Thread(target=self._conn.commit)
        self._thread.start()
        until(self._waits, 30, "it waits for the standby")

    def _waits(self) -> bool:
        with psycopg.connect(self._url, autocommit=True) as conn:
            row = conn.execute(
                "select wait_event = 'SyncRep' from pg_stat_activity where pid = %s", [self._pid]
            ).fetchone()
        return row is not None and bool(row[0])

    def release(self) -> None:
        """Now it is visible."""
        if self._conn.closed:
            return
        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute("select pg_cancel_backend(%s)", [self._pid])
        self._thread.join()
        self._conn.close()
