"""The rows of a table as they were at a position, as the destination's functions tell them.

What they can't tell they refuse: see `rows_query` in `store/migrations/0006_states.sql`.
"""

from collections.abc import Generator
from contextlib import closing
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bemi.lsn import Lsn
from bemi.store.reader import JsonAsItIs, streamed
from bemi.store.refusals import told


class StateRow(msgspec.Struct, frozen=True):
    """A row: its key's text, if it has one, and its columns as JSON, called as they were then.

    `flags` are those of the change that left it so, `stale:COLUMN` for each column that DDL
    may have rewritten since, and `uncertain` where it is not surely known.
    """

    key: str | None
    image: msgspec.Raw
    flags: frozenset[str]


class Asked(msgspec.Struct, frozen=True):
    """A SELECT of a table's rows, with the columns `key`, `image` and `flags`.

    `uncertain`: why some of them are not surely known, or missing; None where all are.
    """

    query: str
    uncertain: str | None


def asked(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    table: str,
    position: Lsn,
    *,
    epoch: int | None = None,
    key: str | None = None,
    allow_gaps: bool = False,
) -> Asked:
    """What `state` asks. Raises the same."""
    with told(), conn.transaction():
        row = conn.execute(
            sql.SQL(
                "select query, uncertain from {}(%s, lsn => %s::pg_lsn, epoch => %s, source => %s, "
                "allow_gaps => %s, key => %s)"
            ).format(sql.Identifier(schema, "rows_query")),
            [table, str(position), epoch, source, allow_gaps, key],
        ).fetchone()
    assert row is not None
    return Asked(*row)


def state(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    table: str,
    position: Lsn,
    *,
    epoch: int | None = None,
    key: str | None = None,
    allow_gaps: bool = False,
) -> Generator[StateRow]:
    """The rows of `table` (`schema.table`, a partition or the table above it) at `position`.

    That is, after all transactions that commit at or before it, read in pieces, as of one moment
    of the history. `epoch`: by default the source's present one. `key`: only the row with this
    one. Raises `UnknownStateError` before the first row where the history can't tell the whole
    state, unless `allow_gaps`, `NotYetError` beyond what is captured, and `UsageError` for what
    can be no key of the table.
    """
    with told(), conn.transaction():
        question = asked(
            conn, schema, source, table, position, epoch=epoch, key=key, allow_gaps=allow_gaps
        )
        yield from rows(conn, question)


def rows(conn: psycopg.Connection[Any], question: Asked) -> Generator[StateRow]:
    """In a transaction of the connection's, whose search path it sets: functions and operators of
    others, which `public` may have for the types of the query, have no place in it. Nor is it
    compiled: that takes longer than to read many a table. Until the generator is closed the
    connection is not for anything else."""
    conn.execute("set local search_path to pg_catalog, pg_temp; set local jit to off")
    with conn.cursor() as cursor:
        cursor.adapters.register_loader("jsonb", JsonAsItIs)
        query = question.query.encode(conn.info.encoding)
        with closing(streamed(cursor, query)) as found:
            for key, image, flags in found:
                yield StateRow(key, image, frozenset(flags or ()))
