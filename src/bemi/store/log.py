"""The log of each source as the history has it, for who reads it in order: how far it reaches,
where a part of it that can be read at once ends, and what is missing in it.

Only reads. Places are (epoch, commit position, ordinal), as states follow each other.
"""

from datetime import datetime
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.store.extent import CONTINUED, GONE, NEW_EPOCH

WINDOW: Final = 4000
"""Changes that are looked at in one statement: short, whatever the filters let through."""

_TOLD_BY_GAPS: Final = ("slot_ahead", *NEW_EPOCH)
"""Ends of stretches for which there is one gap of the whole source."""


class Head(msgspec.Struct, frozen=True):
    """How far the log of a source is stored: what commits before `position`, in `epoch`.

    `chunk`: where the last chunk of a baseline lies, while one is being taken whose rows may
    belong in the order: the next one lies behind it. `missing`: how many `Missing` there are.
    """

    source_id: int
    source: str
    starts: dict[int, int]
    """Where each epoch begins, in their order."""
    epoch: int | None
    position: int
    taking: bool
    chunk: int
    missing: int

    @property
    def end(self) -> int:
        """Before this nothing can come any more, in `epoch`."""
        return min(self.position, self.chunk + 1) if self.taking else self.position


class Missing(msgspec.Struct, frozen=True):
    """Changes that the history does not have, of one table or of all; or none from there on."""

    id: tuple[str, int]
    epoch: int
    from_position: int
    to_position: int | None
    cause: str
    detail: str
    table: str | None
    partition: str | None

    @property
    def place(self) -> tuple[int, int]:
        return self.epoch, self.from_position

    @property
    def ends_epoch(self) -> bool:
        return self.cause in NEW_EPOCH


# The lock is looked at after the snapshot was taken. So, where nobody holds it, the rows of a
# baseline that begins later lie behind the position; where somebody does, behind the last chunk.
_HEADS: Final[LiteralString] = """
select s.source_id, s.name,
    array(select e.epoch from {epochs} e where e.source_id = s.source_id order by e.epoch),
    array(
        select e.started_position from {epochs} e where e.source_id = s.source_id order by e.epoch
    ),
    k.epoch, coalesce(k.position, 0),
    exists (
        select from {baselines} b join {intervals} i using (interval_id)
        where b.source_id = s.source_id and b.finished_at is null and b.failed is null
            and (%(baseline)s or exists (
                select from {intervals} o
                where o.source_id = i.source_id and o.relation = i.relation
                    and o.interval_id <> i.interval_id
            ))
    ) and exists (
        select from pg_locks l
        where l.locktype = 'advisory' and l.objsubid = 1
            and l.database = (select oid from pg_database where datname = current_database())
            and l.classid::bigint << 32 | l.objid::bigint
                = hashtextextended('bemi.baseline ' || %(schema)s::text || ' ' || s.source_id, 0)
    ),
    coalesce((
        select max(b.last_position) from {baselines} b
        where b.source_id = s.source_id and b.epoch = k.epoch
    ), 0),
    (select count(*) from {gaps} g where g.source_id = s.source_id and {untold})
    + (select count(*) from {intervals} i where i.source_id = s.source_id and {ended})
from {sources} s left join {checkpoints} k using (source_id)
order by s.name
"""

# What rules leave out is left out on purpose, and a rewrite loses no change.
_UNTOLD: Final[LiteralString] = "g.columns is null and g.cause <> 'ignored'"
_ENDED: Final[LiteralString] = "i.closed <> all(%(unbroken)s)"

_MISSING: Final[LiteralString] = """
select kind, id, epoch, from_position, to_position, cause, detail, "table", partition
from (
    select 'gap' as kind, g.gap_id as id, g.epoch, g.from_position, g.to_position, g.cause,
        g.detail, i.schema || '.' || i."table" as "table", i.partition, g.detected_at as known_at
    from {gaps} g
    left join lateral (
        select * from {intervals} i
        where i.source_id = g.source_id and i.relation = g.relation
        order by i.interval_id desc limit 1
    ) i on true
    where g.source_id = %(source_id)s and {untold}
    union all
    select 'end', i.interval_id, i.epoch, i.to_position, (
            select min(n.from_position) from {intervals} n
            where n.source_id = i.source_id and n.relation = i.relation and n.epoch = i.epoch
                and n.interval_id > i.interval_id
        ), i.closed, '', i.schema || '.' || i."table", i.partition, i.closed_at
    from {intervals} i
    where i.source_id = %(source_id)s and {ended}
) each
order by known_at, kind, id
"""


def heads(conn: psycopg.Connection[Any], schema: str, *, baseline: bool) -> list[Head]:
    """Of each source, as of one moment. `baseline`: whether rows of baselines are read, too."""
    found = conn.execute(
        _composed(schema, _HEADS),
        {"schema": schema, "baseline": baseline, "unbroken": _unbroken()},
    )
    return [
        Head(source_id, source, dict(zip(epochs, starts, strict=True)), *rest)
        for source_id, source, epochs, starts, *rest in found
    ]


def missing(conn: psycopg.Connection[Any], schema: str, source_id: int) -> list[Missing]:
    """In the order in which they became known."""
    found = conn.execute(
        _composed(schema, _MISSING), {"source_id": source_id, "unbroken": _unbroken()}
    )
    return [Missing((kind, id), *rest) for kind, id, *rest in found]


def window_end(conn: psycopg.Connection[Any], schema: str, start: int, end: int) -> int:
    """Where to read to from the commit at `start` on, so that it is not too much: at most `end`.

    It is `start` itself where this one transaction is too much. Counts all sources, so that the
    index alone can tell.
    """
    row = conn.execute(
        sql.SQL(
            "select commit_position from {} where commit_position >= %s and commit_position < %s "
            "order by commit_position offset %s limit 1"
        ).format(sql.Identifier(schema, "row_changes")),
        [start, end, WINDOW],
    ).fetchone()
    return end if row is None else int(row[0])


def committed_at(
    conn: psycopg.Connection[Any], schema: str, epoch: int, commit: int
) -> datetime | None:
    """When the transaction there was committed, if one of the epoch was."""
    row = conn.execute(
        sql.SQL(
            "select committed_at from {} where commit_position = %s and epoch = %s limit 1"
        ).format(sql.Identifier(schema, "row_changes")),
        [commit, epoch],
    ).fetchone()
    return None if row is None else row[0]


def last_ordinal(
    conn: psycopg.Connection[Any], schema: str, committed_at: datetime, epoch: int, commit: int
) -> int:
    """That of the transaction's last change; 0 where it has none."""
    row = conn.execute(
        sql.SQL(
            "select ordinal from {} where committed_at = %s and commit_position = %s "
            "and epoch = %s order by ordinal desc limit 1"
        ).format(sql.Identifier(schema, "changes")),
        [committed_at, commit, epoch],
    ).fetchone()
    return 0 if row is None else int(row[0])


def _composed(schema: str, query: LiteralString) -> sql.Composed:
    names = {
        name: sql.Identifier(schema, name)
        for name in ("baselines", "checkpoints", "epochs", "gaps", "intervals", "sources")
    }
    return sql.SQL(query).format(untold=sql.SQL(_UNTOLD), ended=sql.SQL(_ENDED), **names)


def _unbroken() -> list[str]:
    return [*CONTINUED, *GONE, *_TOLD_BY_GAPS]
