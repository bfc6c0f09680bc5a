"""How the coverage of a published table begins: where its writers of before have ended.

Each of `join`'s looks takes every table as far as it goes; what it learns of a table is kept
between looks. Whether the table has rows is asked then, since the state of one without is known.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from bemi.capture import locks
from bemi.capture.locks import Locks
from bemi.capture.sight import Known, Memory, Pending, here_and_now
from bemi.connections import explained
from bemi.lsn import Lsn

Connection = psycopg.Connection[Any]

POLL: Final = 0.05
"""Seconds between looks while writers are waited for."""


_LOCK_TIMEOUT: Final = "500ms"

_GLANCE_TIMEOUT: Final = "5s"
"""For finding that a table has no row, among all that it had: it can do without."""

_GLANCES: Final = 5
"""Looks at a table that others keep locked, before its state is left unknown."""


class Begun(msgspec.Struct, frozen=True):
    """From where on a table is captured whole, and where it was seen without rows, if it was."""

    position: Lsn
    state: Lsn | None
    at: datetime


def join(
    source: Connection,
    joining: list[Known],
    starts: Mapping[int, Lsn],
    memory: Memory,
    patience: float,
    begin: Callable[[Known, Begun], None],
    report: Callable[[str], None],
) -> list[Known]:
    """Begin the intervals of published tables, as their writers end; those still to begin."""
    deadline = time.monotonic() + patience
    memory.pending = {
        table.relation: found
        for table in joining
        if (found := memory.pending.get(table.relation)) is not None
        and found.membership == table.membership
    }
    told: set[int] = set()
    while True:
        with explained("source"):
            now = locks.look(source)
            here, at = here_and_now(source)
        for table in joining:
            pending = memory.pending.get(table.relation)
            if pending is None:
                pending = memory.pending[table.relation] = Pending(
                    table.membership or 0, now, starts.get(table.relation)
                )
                if pending.position is not None:
                    pending.first = None
            with explained("source"):
                begun = _advance(source, table, pending, now, here, at)
            if begun is not None:
                begin(table, begun)
                del memory.pending[table.relation]
            elif table.relation not in told:
                told.add(table.relation)
                report(f"waiting for transactions that write to {table.qualified}")
        joining = [table for table in joining if table.relation in memory.pending]
        if not joining or time.monotonic() > deadline:
            return joining
        time.sleep(POLL)


def _advance(
    source: Connection, table: Known, pending: Pending, now: Locks, here: Lsn, at: datetime
) -> Begun | None:
    """Take one table as far as it goes: `here` was read after the look `now` at the locks.

    Once the writers that were there when it was found published have ended, none of what commits
    from `here` on is lost. Whether it has rows is asked then. That it has none is known for sure
    where it never had any; or else when all that committed before is visible, which it is when
    the writers of then have ended as well.
    """
    if pending.position is None:
        assert pending.first is not None
        if locks.still_writing(pending.first, now, table.relation):
            return None
        pending.position, pending.first = here, None
    if pending.first is not None and locks.still_writing(pending.first, now, table.relation):
        return None
    glance = _glance(source, table)
    if glance == "locked":
        pending.glances += 1
        return None if pending.glances < _GLANCES else Begun(pending.position, None, at)
    if glance == "unseen":
        return Begun(pending.position, None, at)
    if isinstance(glance, _Bare):
        if not glance.ever and not table.keyed:
            # Rows that went since may be in the history as gone, but never as there.
            return Begun(pending.position, None, glance.at)
        if glance.ever or pending.first is not None:
            return Begun(pending.position, glance.position, glance.at)
        pending.first = locks.look(source)
        return None
    return Begun(pending.position, None, glance)


class _Bare(msgspec.Struct, frozen=True):
    """A table without rows, at a position; `ever`: it has not had one since it was truncated."""

    position: Lsn
    at: datetime
    ever: bool


_Glance: TypeAlias = _Bare | datetime | Literal["locked", "unseen"]
"""A table without rows; one with rows, and when; or why it can't be told."""


def _glance(source: Connection, table: Known) -> _Glance:
    """Whether the table has rows.

    It is locked before the first statement takes its snapshot, which would not be safe from
    TRUNCATE otherwise. While it is locked no page of it can go, so that one that has none now
    had none at the position that was read before. What a snapshot shows committed before the
    position that is read after it.
    """
    name = sql.Identifier(table.schema, table.name)
    try:
        with source.transaction():
            source.execute("set transaction isolation level repeatable read, read only")
            source.execute("set local row_security to off")
            source.execute(sql.SQL("set local lock_timeout to {}").format(_LOCK_TIMEOUT))
            source.execute(sql.SQL("set local statement_timeout to {}").format(_GLANCE_TIMEOUT))
            source.execute(sql.SQL("lock table only {} in access share mode").format(name))
            before, _ = here_and_now(source)
            # Without parameters, which a `%` in the name would be taken for.
            row = source.execute(
                sql.SQL(
                    "select to_regclass({name})::oid::bigint, "
                    "pg_relation_size({oid}::oid::regclass) = 0, exists (select from only {table})"
                ).format(
                    name=sql.Literal(name.as_string(source)),
                    oid=sql.Literal(table.relation),
                    table=name,
                )
            ).fetchone()
            after, at = here_and_now(source)
    except (
        psycopg.errors.LockNotAvailable,
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidSchemaName,
    ):
        return "locked"
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled):
        return "unseen"
    assert row is not None
    oid, without_pages, has_rows = row
    if oid != table.relation:
        return "locked"  # it has another name by now
    if has_rows:
        return at
    ever = table.heap and without_pages
    return _Bare(before if ever else after, at, ever)
