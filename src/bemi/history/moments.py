"""Turns a time into a position of a source's log; from there on everything goes by position.

So no transaction is ever split, though commit times do not rise in the order of the commits.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import UnknownStateError
from bemi.history.waiting import once_captured
from bemi.lsn import Lsn
from bemi.store import reader
from bemi.store.refusals import told


class Position(msgspec.Struct, frozen=True, order=True):
    """After all transactions of the source that commit at or before it."""

    epoch: int
    commit: Lsn


def resolve(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    when: datetime,
    *,
    captured: datetime | None = None,
) -> Position:
    """The greatest position whose commit is at or before `when`.

    Until when all is captured is known by the last transaction that is stored, and on an idle
    source by what the worker has proven; who has proof of more, because the history has reached
    a position that was written later, gives it as `captured`. Raises
    `NotYetError` for times beyond that, and `UnknownStateError` before the history begins.
    """
    with told(), conn.transaction():
        row = conn.execute(
            sql.SQL("select epoch, position from {}(%s, %s, %s)").format(
                sql.Identifier(schema, "resolve")
            ),
            [source, when, captured],
        ).fetchone()
    assert row is not None
    return Position(row[0], Lsn(row[1]))


class Moment(msgspec.Struct, frozen=True):
    """A position in a source's log."""

    source: str
    epoch: int
    position: Lsn


def newest(conn: psycopg.Connection[Any], schema: str, source: str) -> Moment:
    """The last position that is captured. Raises `UnknownStateError` where there is none."""
    row = conn.execute(
        sql.SQL(
            "select k.epoch, k.position from {} k join {} s using (source_id) where s.name = %s"
        ).format(sql.Identifier(schema, "checkpoints"), sql.Identifier(schema, "sources")),
        [source],
    ).fetchone()
    if row is None:
        raise UnknownStateError(f"there is no source {source} in the history")
    return Moment(source, row[0], Lsn(row[1] - 1))


def find(
    conn: psycopg.Connection[Any],
    schema: str,
    when: datetime | Lsn | UUID,
    table: str | None = None,
    source: str | None = None,
    *,
    patience: float = 0,
) -> Moment:
    """The position that is meant by a time, an LSN of the present epoch, or a change's id.

    Of the source that has `table`, where none is named. Waits for what is not captured yet, for
    so many seconds. Raises `UnknownStateError`, `NotYetError`, and `UsageError` where it is not
    clear which source is meant.
    """
    if isinstance(when, UUID):
        change = reader.change(conn, schema, when, source)
        return Moment(change.source, change.epoch, Lsn(change.commit_position))
    given = (when, None) if isinstance(when, datetime) else (None, str(when))

    def ask() -> Moment:
        with told(), conn.transaction():
            row = conn.execute(
                sql.SQL(
                    "select source, epoch, position from {}(%s, %s, null, %s::pg_lsn, null, %s)"
                ).format(sql.Identifier(schema, "place_at")),
                [table, *given, source],
            ).fetchone()
        assert row is not None
        return Moment(row[0], row[1], Lsn(row[2]))

    return once_captured(conn, schema, ask, patience=patience)


def tables(conn: psycopg.Connection[Any], schema: str, place: Moment) -> list[str]:
    """The names (`schema.table`) of those that there were, without their partitions."""
    with told(), conn.transaction():
        rows = conn.execute(
            sql.SQL(
                "select distinct schema || '.' || \"table\""
                " from {}(lsn => %s::pg_lsn, epoch => %s, source => %s)"
                " where partition_of is null order by 1"
            ).format(sql.Identifier(schema, "tables_at")),
            [str(place.position), place.epoch, place.source],
        )
        return [name for (name,) in rows]
