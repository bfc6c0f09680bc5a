"""What happened to the rows of a table between two positions of one epoch: not what they held."""

from collections.abc import Iterator
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

_FETCH: Final = 1000

_THEIR: Final[LiteralString] = """
with theirs as (
    select n.source_id, n.epoch, n.relation,
        array_agg(distinct n.schema || '.' || n."table") filter (where n.partition is not null)
            as above
    from {names} n join {sources} s using (source_id)
    where s.name = %(source)s and n.epoch = %(epoch)s
        and (n.schema || '.' || n."table" = %(table)s or n.partition = %(table)s)
    group by 1, 2, 3
),
called as (
    select "table" from {names} join theirs using (source_id, epoch, relation)
    where "table" is not null
    union
    select "table" from {versions} join theirs using (source_id, epoch, relation)
    union
    select "table" from {intervals} join theirs using (source_id, epoch, relation)
),
between_them as (
    select r.relation, r.commit_position, r.ordinal, r.operation, r.primary_key, r.previous_key,
        r.flags
    from {changes} r
    where r."table" in (select "table" from called)
        and r.relation in (select relation from theirs) and r.epoch = %(epoch)s
        and r.commit_position > %(start)s and r.commit_position <= %(end)s
)
"""

# Whether changes of rows are all that there was: no other shape, name or partition, no end of
# what is known, no TRUNCATE, and keys by which rows are followed.
_ONLY_ROWS: Final[LiteralString] = """
select not exists (
    select from {names} n join theirs using (source_id, epoch, relation)
    where n.from_position > %(start)s and coalesce(n.after_position, n.from_position) <= %(end)s
) and not exists (
    select from {definitions} d
    where d.source = %(source)s and d.epoch = %(epoch)s and d.kind = 'table'
        -- Of a partition only the table above it is looked at.
        and exists (select from theirs t
            where d.oid = t.relation or d.schema || '.' || d.name = any (t.above))
        and d.from_position > %(start)s and coalesce(d.after_position, d.from_position) <= %(end)s
) and not exists (
    select from {versions} v join theirs using (source_id, epoch, relation)
    where v.from_position > %(start)s and v.from_position <= %(end)s
) and not exists (
    select from {intervals} i join theirs using (source_id, epoch, relation)
    where i.from_position > %(start)s and i.from_position <= %(end)s
        or i.to_position > %(start)s and i.to_position <= %(end)s
        or i.state_position > %(start)s and i.state_position <= %(end)s
) and not exists (
    select from {gaps} g
    where g.source_id in (select source_id from theirs) and g.epoch = %(epoch)s
        and (g.relation is null or g.relation in (select relation from theirs))
        and g.to_position > %(start)s and g.from_position <= %(end)s
) and not exists (
    select from between_them where operation = 'TRUNCATE' or primary_key is null
)
"""

_KEYS: Final[LiteralString] = """
select primary_key from between_them
union
select previous_key from between_them where previous_key is not null
limit %(most)s
"""

# By which it can be asked whether the state is known, where no row differs.
_ANY_KEY: Final[LiteralString] = """
select primary_key from {changes}
where "table" in (select "table" from called) and relation in (select relation from theirs)
    and epoch = %(epoch)s and commit_position <= %(end)s and primary_key is not null
order by commit_position desc limit 1
"""

_MOVED: Final[LiteralString] = """
select exists (
    select from between_them
    where previous_key is not null or 'moved' = any(coalesce(flags, '{{}}'))
)
"""

_STEPS: Final[LiteralString] = """
select operation, primary_key, previous_key, 'moved' = any(coalesce(flags, '{{}}')),
    relation::bigint
from between_them
where previous_key is not null or operation in ('CREATE', 'DELETE', 'TRUNCATE')
order by commit_position, ordinal
"""


class Stretch(msgspec.Struct, frozen=True):
    """Behind `start`, up to `end`: both are positions of commits."""

    source: str
    table: str
    epoch: int
    start: int
    end: int


class Step(msgspec.Struct, frozen=True):
    """How a key came or went; `moved`: the row came out of the one that was deleted just before."""

    operation: str
    key: str | None
    previous_key: str | None
    moved: bool
    relation: int


def touched(
    conn: psycopg.Connection[Any], schema: str, stretch: Stretch, most: int
) -> list[str] | None:
    """The keys of all rows that may differ, or one that does not. None where that is not told by
    changes of rows alone, or where there are more."""
    given = {**msgspec.structs.asdict(stretch), "most": most + 1}
    if conn.execute(_statement(schema, _ONLY_ROWS), given).fetchone() != (True,):
        return None
    keys = [row[0] for row in conn.execute(_statement(schema, _KEYS), given)]
    keys = keys or [row[0] for row in conn.execute(_statement(schema, _ANY_KEY), given)]
    return keys if 0 < len(keys) <= most else None


def steps(conn: psycopg.Connection[Any], schema: str, stretch: Stretch) -> Iterator[Step]:
    """In order, how keys came and went; nothing where no row got another key."""
    given = msgspec.structs.asdict(stretch)
    if conn.execute(_statement(schema, _MOVED), given).fetchone() != (True,):
        return
    with conn.transaction(), conn.cursor("bemi_steps") as cursor:
        cursor.itersize = _FETCH
        cursor.execute(_statement(schema, _STEPS), given)
        for row in cursor:
            yield Step(*row)


def _statement(schema: str, text: LiteralString) -> sql.Composed:
    return sql.SQL(_THEIR + text).format(
        names=sql.Identifier(schema, "relation_names"),
        sources=sql.Identifier(schema, "sources"),
        definitions=sql.Identifier(schema, "definitions"),
        versions=sql.Identifier(schema, "table_versions"),
        intervals=sql.Identifier(schema, "intervals"),
        gaps=sql.Identifier(schema, "gaps"),
        changes=sql.Identifier(schema, "images"),
    )
