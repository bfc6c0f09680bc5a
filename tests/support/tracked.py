"""A source and a destination that are set up, and what the history has once it is caught up."""

import functools
import json
import threading
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from bemi.capture import worker
from bemi.config import Settings
from tests.support.waiting import until

Row = dict[str, Any]


class Tracked:
    """Connections to both ends. `source` is in autocommit, as an application without care is."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.source = self.connect()
        self.destination = psycopg.connect(
            settings.destination_url, autocommit=True, row_factory=dict_row
        )
        # Numbers exactly as they are stored.
        loads = functools.partial(json.loads, parse_float=Decimal)
        set_json_loads(loads, self.destination)

    def close(self) -> None:
        self.source.close()
        self.destination.close()

    def connect(self) -> psycopg.Connection[Any]:
        """Another session of the application."""
        return psycopg.connect(self.settings.source_url, autocommit=True)

    def catch_up(self, *, accept_gap: bool = False) -> None:
        """Run a worker in this process until all that is committed is in the history."""
        worker.run(
            self.settings, stop=threading.Event(), until_caught_up=True, accept_gap=accept_gap
        )

    def skip_ahead(self) -> None:
        """Let the slot forget what is not stored."""

        def skipped() -> bool:
            try:
                self.source.execute(
                    "select pg_replication_slot_advance(%s, pg_current_wal_insert_lsn())",
                    [self.settings.slot],
                )
            except psycopg.errors.ObjectInUse:  # by the walsender of a worker that just ended
                return False
            return True

        until(skipped, 30, "the slot is free")

    def changes(self) -> list[Row]:
        """Catch up, and read all changes in order. The view must not lose or double any."""
        self.catch_up()
        rows = self.query("select * from bemi.changes order by epoch, commit_position, ordinal")
        (stored,) = self.query("select count(*) as n from bemi.row_changes")
        assert len(rows) == stored["n"]
        self._check(rows)
        return rows

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Rows of the destination."""
        return self.destination.execute(statement.encode(), parameters or None).fetchall()

    def _check(self, rows: Sequence[Row]) -> None:
        """What holds for every history: no holes, no twins, nothing null that may not be."""
        last: tuple[int, int] = (0, 0)
        for row in rows:
            commit, ordinal = row["commit_position"], row["ordinal"]
            expected = last[1] + 1 if commit == last[0] else 1
            assert ordinal == expected, f"ordinal {ordinal} follows {last[1]}"
            last = (commit, ordinal)
            for name in ("before", "after", "context"):
                assert isinstance(row[name], dict), f"{name} is {row[name]!r}"
            assert row["position"] <= commit
            assert row["queued_at"] <= row["created_at"]
        assert len({row["id"] for row in rows}) == len(rows)
