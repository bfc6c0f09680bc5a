"""A tracked source whose states are written down, and what is claimed of them."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import psycopg
import pytest

from bemi.capture import coverage
from bemi.capture.coverage import Kept
from bemi.errors import UnknownStateError
from bemi.history.state import state
from bemi.lsn import Lsn
from tests.support.tracked import Row, Tracked


class Cover(Protocol):
    def __call__(self, *statements: str, full: Sequence[str] = ()) -> "Covered": ...


class Covered(Tracked):
    """A tracked source, whose states are written down as they are at positions of its log."""

    def position(self) -> Lsn:
        row = self.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return Lsn.parse(row[0])

    def now(self, table: str = "public.t") -> tuple[Lsn, Counter[str]]:
        """The rows at a position; nobody else writes."""
        cursor = self.source.execute(f"select to_jsonb(t) from {table} t".encode())
        rows = Counter(json.dumps(row[0], sort_keys=True) for row in cursor)
        return self.position(), rows

    def state(self, position: Lsn, table: str = "public.t") -> Counter[str]:
        with psycopg.connect(self.settings.destination_url, autocommit=True) as conn:
            return Counter(
                json.dumps(json.loads(bytes(row.image)), sort_keys=True)
                for row in state(conn, "bemi", self.settings.source, table, position)
            )

    def keep(self, **options: Any) -> Kept:
        """One look of the worker's at its coverage."""
        (held,) = self.query("select source_id, epoch from bemi.checkpoints")
        with psycopg.connect(self.settings.destination_url, autocommit=True) as destination:
            return coverage.keep(
                self.source,
                destination,
                schema="bemi",
                publication=self.settings.publication,
                source_id=held["source_id"],
                epoch=held["epoch"],
                **options,
            )

    def intervals(self, table: str = "t") -> list[Row]:
        return self.query(
            'select * from bemi.intervals where "table" = %s or partition like %s '
            "order by interval_id",
            [table, f"%.{table}"],
        )

    def refuses(self, position: Lsn, why: str, table: str = "public.t") -> None:
        with pytest.raises(UnknownStateError, match=why) as caught:
            self.state(position, table)
        assert caught.value.fix
