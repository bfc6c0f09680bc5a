"""The rows of a table as they were at a position, from its changes; refused where that is unknown.

Of a table with a key, each row is what its last change left, after the last TRUNCATE; a change
of the key ends the row under the old one. Of a table without a key the rows are a multiset: what
came less what went. Both begin where the interval of coverage does in which the position lies.
"""

from collections.abc import Iterator
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import UnknownStateError
from bemi.lsn import Lsn

_FETCH: Final = 1000


class StateRow(msgspec.Struct, frozen=True):
    """A row: its key's text, if it has one, and its columns as JSON.

    `flags` are those of the change that left it so, and `stale:COLUMN` for each column that DDL
    may have rewritten since.
    """

    key: str | None
    image: msgspec.Raw
    flags: frozenset[str]


class _Part(msgspec.Struct, frozen=True):
    """The rows of one relation, and the stretch of its history that tells them."""

    relation: int
    name: str
    keyed: bool
    epoch: int
    start: int
    baseline: int | None
    """Where its baseline ended; None when it was empty at first."""


_PARTS: Final[LiteralString] = """
with wanted as (
    select distinct i.relation
    from {intervals} i join {sources} s using (source_id)
    where s.name = %(source)s
        and (i.schema || '.' || i."table" = %(table)s or i.partition = %(table)s)
)
select w.relation::bigint, coalesce(i.partition, last.partition, %(table)s),
    coalesce((
        select cardinality(v.primary_key) > 0 from {versions} v
        where v.relation = w.relation and v.epoch = i.epoch and v.from_position <= %(position)s
        order by v.from_position desc, v.from_ordinal desc limit 1
    ), true),
    i.epoch, i.from_position, case when i.state_by = 'baseline' then i.state_position end,
    i.state_position <= %(position)s, last.closed, last.to_position
from wanted w
left join lateral (
    select * from {intervals} i
    where i.relation = w.relation and i.from_position <= %(position)s
        and (i.to_position is null or %(position)s < i.to_position)
        and i.epoch = %(epoch)s
    limit 1
) i on true
left join lateral (
    select * from {intervals} l where l.relation = w.relation
        and (l.epoch < %(epoch)s or l.epoch = %(epoch)s and l.to_position <= %(position)s)
    order by l.epoch desc, l.to_position desc limit 1
) last on true
"""

_IN_THE_WAY: Final[LiteralString] = """
select g.cause, g.from_position, g.to_position from {gaps} g
where g.epoch = %(epoch)s and g.columns is null
    and g.relation = %(relation)s
    and g.from_position <= %(position)s and g.to_position > %(known)s
order by g.from_position limit 1
"""

_STALE: Final[LiteralString] = """
select unnest(g.columns), g.to_position from {gaps} g
where g.epoch = %(epoch)s and g.relation = %(relation)s and g.columns is not null
    and g.from_position <= %(position)s
"""

_KEYED: Final[LiteralString] = """
with emptied as (
    select commit_position, ordinal from {changes}
    where relation = %(relation)s and epoch = %(epoch)s and operation = 'TRUNCATE'
        and commit_position between %(start)s and %(position)s
    order by commit_position desc, ordinal desc limit 1
),
present as (
    select * from {changes} r
    where relation = %(relation)s and epoch = %(epoch)s and operation <> 'TRUNCATE'
        and commit_position between %(start)s and %(position)s
        and not exists (select from emptied e
            where (r.commit_position, r.ordinal) <= (e.commit_position, e.ordinal))
),
last as (
    select distinct on (key) key, image, flags, commit_position from (
        select primary_key as key, case when operation <> 'DELETE' then after end as image,
            flags, commit_position, ordinal, 1 as half from present
        union all
        select previous_key, null, null, commit_position, ordinal, 0 from present
        where previous_key is not null
    ) each
    order by key, commit_position desc, ordinal desc, half desc
)
select key, image::text, flags, commit_position from last where image is not null
"""

_KEYLESS: Final[LiteralString] = """
with emptied as (
    select commit_position, ordinal from {changes}
    where relation = %(relation)s and epoch = %(epoch)s and operation = 'TRUNCATE'
        and commit_position between %(start)s and %(position)s
    order by commit_position desc, ordinal desc limit 1
),
present as (
    select * from {changes} r
    where relation = %(relation)s and epoch = %(epoch)s and operation <> 'TRUNCATE'
        and commit_position between %(start)s and %(position)s
        and (%(baseline)s::bigint is null or commit_position >= %(baseline)s)
        and not exists (select from emptied e
            where (r.commit_position, r.ordinal) <= (e.commit_position, e.ordinal))
),
moved as (
    select after as image, 1 as n, commit_position from present where after is not null
    union all
    select coalesce(before, after || changed), -1, null from present
    where operation in ('UPDATE', 'DELETE')
)
select null, image::text, null::text[], max(commit_position)
from (
    select image, sum(n) as n, max(commit_position) as commit_position from moved group by image
) left_over, generate_series(1, n)
group by image, generate_series
"""


def state(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    table: str,
    position: Lsn,
    *,
    epoch: int | None = None,
) -> Iterator[StateRow]:
    """The rows of `table` (`schema.table`, a partition or the table above it) at `position`.

    That is, after all transactions that commit at or before it. `epoch`: by default the source's
    present one. Raises `UnknownStateError` where the history can't tell the whole state.
    """
    names = ("intervals", "sources", "row_changes", "gaps", "checkpoints", "table_versions")
    tables = {name: sql.Identifier(schema, name) for name in names}
    tables |= {"changes": tables["row_changes"], "versions": tables["table_versions"]}

    def statement(text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(**tables)

    with conn.transaction():
        epoch = _require_captured(conn, tables, source, table, position, epoch)
        given = {"source": source, "table": table, "position": int(position), "epoch": epoch}
        found = conn.execute(statement(_PARTS), given).fetchall()
        if not found:
            raise UnknownStateError(
                f"{table} is not in the history of {source}",
                fix="`bemi status --coverage` lists the tables that are",
            )
        for part in [_known_part(conn, statement, row, position) for row in found]:
            yield from _rows(conn, statement, part, position)


def _require_captured(
    conn: psycopg.Connection[Any],
    tables: dict[str, sql.Identifier],
    source: str,
    table: str,
    position: Lsn,
    epoch: int | None,
) -> int:
    """The epoch of `position`, which the checkpoint has to have reached."""
    row = conn.execute(
        sql.SQL(
            "select k.epoch, k.position from {checkpoints} k join {sources} s using (source_id) "
            "where s.name = %s"
        ).format(**tables),
        [source],
    ).fetchone()
    if row is None:
        raise UnknownStateError(f"there is no source {source} in the history")
    if epoch is not None and epoch != row[0]:
        return epoch
    if position > row[1]:
        raise UnknownStateError(
            f"{table} at {position} is not captured yet: the history of {source} ends at"
            f" {Lsn(row[1])}",
            fix="wait for the worker, or ask for an earlier position",
        )
    return int(row[0])


def _known_part(
    conn: psycopg.Connection[Any],
    statement: Any,
    row: tuple[Any, ...],
    position: Lsn,
) -> _Part:
    relation, name, keyed, epoch, start, baseline, known, closed, ended = row
    if epoch is None:
        why = "it was not tracked then"
        if closed is not None and ended is not None and ended <= position:
            why = f"its coverage ended at {Lsn(ended)}: {closed}"
        raise UnknownStateError(
            f"{name} at {position} is not known: {why}",
            fix="`bemi status --coverage` shows from where to where it is",
        )
    if not known:
        raise UnknownStateError(
            f"{name} at {position} is not known: its rows from before it was tracked have no"
            " baseline by then",
            fix="`bemi snapshot` takes one",
        )
    gap = conn.execute(
        statement(_IN_THE_WAY),
        {
            "epoch": epoch,
            "relation": relation,
            "position": int(position),
            "known": start if baseline is None else baseline,
        },
    ).fetchone()
    if gap is not None:
        raise UnknownStateError(
            f"{name} at {position} is not known: changes between {Lsn(gap[1])} and"
            f" {Lsn(gap[2])} are missing ({gap[0]})",
            fix="`bemi snapshot --again` takes a new baseline, behind which it is",
        )
    return _Part(relation, name, keyed, epoch, start, baseline)


def _rows(
    conn: psycopg.Connection[Any], statement: Any, part: _Part, position: Lsn
) -> Iterator[StateRow]:
    given = msgspec.structs.asdict(part) | {"position": int(position)}
    stale = conn.execute(statement(_STALE), given).fetchall()
    query = statement(_KEYED if part.keyed else _KEYLESS)
    with conn.cursor(f"bemi_state_{part.relation}") as cursor:
        cursor.itersize = _FETCH
        cursor.execute(query, given)
        for key, image, flags, commit_position in cursor:
            old = {f"stale:{column}" for column, to in stale if commit_position < to}
            yield StateRow(key, msgspec.Raw(image.encode()), frozenset(flags or ()) | old)
