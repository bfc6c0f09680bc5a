"""Makes the time partitions that changes need, ahead of them and for any clock's time."""

from typing import Any, Final

import psycopg
from psycopg import sql

_AHEAD: Final = 28


class Partitions:
    """Remembers which days have their partitions, so that few batches ask the server."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._known: set[int] = set()

    def ensure(self, conn: psycopg.Connection[Any], days: set[int]) -> None:
        """Make what changes committed on `days` need, and what the four weeks after will.

        Days are counted from 2000-01-01 UTC.
        """
        for day in sorted(days - self._known):
            conn.execute(
                sql.SQL(
                    "select {}(timestamptz '2000-01-01 00:00:00+00' + make_interval(days => %s),"
                    " timestamptz '2000-01-01 00:00:00+00' + make_interval(days => %s))"
                ).format(sql.Identifier(self._schema, "ensure_partitions")),
                [day, day + _AHEAD],
            )
            self._known.add(day)
