"""The difference between two states of a table, or of one row.

Only the rows that changes touched in between are looked at, where changes of rows are all that
happened to the table then, and not many. Else both states are read as a whole, and compared on
disk. Both ways give the same.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import UnknownStateError, UsageError
from bemi.history import moments, state
from bemi.history.change import Row
from bemi.history.difference import Difference
from bemi.history.moments import Moment
from bemi.history.spool import Spool
from bemi.history.state import StateRow
from bemi.lsn import Lsn
from bemi.store import between
from bemi.store.between import Stretch
from bemi.store.refusals import told

_MOST_ROWS: Final = 10_000
"""That are asked for by their keys."""


class Compared(msgspec.Struct, frozen=True):
    """Two states of a table of one source."""

    table: str
    start: Moment
    end: Moment
    key: str | None = None
    """Of one row, under this key or another one that it had or got."""


def between_times(
    conn: psycopg.Connection[Any],
    schema: str,
    table: str,
    key: str | None,
    start: datetime | Lsn | UUID,
    end: datetime | Lsn | UUID | None,
    source: str | None,
) -> Iterator[Difference]:
    """As `compare`; without an end until what was captured last."""
    first = moments.find(conn, schema, start, table, source)
    if end is None:
        last = moments.newest(conn, schema, first.source)
    else:
        last = moments.find(conn, schema, end, table, first.source)
    yield from compare(conn, schema, Compared(table, first, last, key))


def compare(
    conn: psycopg.Connection[Any], schema: str, asked: Compared, *, most: int = _MOST_ROWS
) -> Iterator[Difference]:
    """Raises `UsageError` where the start is behind the end, `UnknownStateError` where the history
    can't tell either state, or has no row with the key."""
    start, end = asked.start, asked.end
    if (start.epoch, start.position) > (end.epoch, end.position):
        raise UsageError(
            f"the difference would go back, from {start.position} to {end.position}",
            fix="give the earlier time as the first one: --from, or start=",
        )
    stretch = None
    if start.epoch == end.epoch:
        stretch = Stretch(end.source, asked.table, end.epoch, start.position, end.position)
    with Spool() as spool:
        if stretch is not None:
            _follow(conn, schema, stretch, spool)
        keys: list[str] | None = None
        if asked.key is not None:
            keys = sorted(spool.moves_of(asked.key))
        elif stretch is not None:
            keys = between.touched(conn, schema, stretch, most)
        count = 0
        for moment, keep in ((start, spool.before), (end, spool.after)):
            for rows in _states(conn, schema, asked, moment, keys):
                with closing(rows):
                    count += keep(rows)
        if asked.key is not None and not count:
            raise UnknownStateError(
                f"{asked.table} had no row {asked.key} at either time",
                fix=f"a key is a text as `bemi changes --table {asked.table}` shows it, of several"
                " columns a JSON array of them",
            )
        for before, after, count in spool.different():
            old = None if before is None else Row.of(before)
            new = None if after is None else Row.of(after)
            difference = Difference.of_rows(old, new, count=count)
            if asked.key in (None, difference.key, difference.previous_key) and (
                difference.columns or difference.kind != "changed"
            ):
                yield difference


def _states(
    conn: psycopg.Connection[Any],
    schema: str,
    asked: Compared,
    moment: Moment,
    keys: list[str] | None,
) -> Iterator[Generator[StateRow]]:
    """Of the table, or of these rows of it, whose keys must be such that it can have them."""
    each: Sequence[str | None] = [None] if asked.key is None or keys is None else keys
    for key in each:
        question = state.asked(
            conn,
            schema,
            moment.source,
            asked.table,
            moment.position,
            epoch=moment.epoch,
            key=key,
        )
        if key is None and keys is not None:
            # The condition reaches the index, since the rows are distinct by their keys.
            query = sql.SQL("select key, image, flags from ({}) q where key = any({})").format(
                sql.SQL(question.query), sql.Literal(keys)
            )
            question = state.Asked(query.as_string(conn), question.uncertain)
        yield _read(conn, question)


def _read(conn: psycopg.Connection[Any], question: state.Asked) -> Generator[StateRow]:
    with told(), conn.transaction():
        yield from state.rows(conn, question)


def _follow(conn: psycopg.Connection[Any], schema: str, stretch: Stretch, spool: Spool) -> None:
    """Which row got which key."""
    deleted: str | None = None
    for step in between.steps(conn, schema, stretch):
        origin, deleted = deleted, None
        if step.operation == "TRUNCATE":
            spool.emptied(step.relation)
        elif step.key is None:
            continue
        elif step.operation == "DELETE":
            deleted = spool.origin(step.key)
            spool.gone(step.key)
        elif step.previous_key is not None:
            spool.moved(step.previous_key, step.key, step.relation)
        elif step.moved and origin is not None:
            spool.came(step.key, origin, step.relation)
