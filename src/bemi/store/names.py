"""What tables are called from where on, as a source's event triggers told it: see `Ddl.tables`.

What the looks at the catalog see stands in the same table, between two positions.
"""

from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from bemi.change import Ddl
from bemi.store.checkpoint import Checkpoint

# Of tables that have a name in the history, and partitions of those that have some in it. A
# partition that is no more below a table is called as it was called itself.
_PLACE: Final[LiteralString] = """
with held as (
    select distinct on (relation) relation, schema, "table", partition
    from {names}
    where source_id = %(source)s and epoch = %(epoch)s and from_position <= %(position)s
    order by relation, from_position desc
),
told as (
    select * from unnest(%(relations)s::oid[], %(schemas)s::text[], %(tables)s::text[],
        %(partitions)s::text[]) t (relation, schema, "table", partition)
),
now as (
    select t.* from told t
    where exists (select from held h where h.relation = t.relation) or exists (
        select from held h
        where t.partition is not null and h.partition is not null
            and (h.schema, h."table") = (t.schema, t."table")
    )
    union all
    select h.relation,
        case when starts_with(h.partition, h.schema || '.') then h.schema
            else split_part(h.partition, '.', 1) end,
        case when starts_with(h.partition, h.schema || '.')
            then substr(h.partition, length(h.schema) + 2)
            else substr(h.partition, strpos(h.partition, '.') + 1) end,
        null
    from held h
    where h.partition is not null and h.schema = %(root_schema)s and h."table" = %(root)s
        and h.relation <> all (%(relations)s::oid[])
)
insert into {names} as n (source_id, epoch, relation, from_position, after_position, schema,
    "table", partition)
select %(source)s, %(epoch)s, relation, %(position)s, %(position)s - 1, schema, "table", partition
from now
where not exists (
    select from held h
    where h.relation = now.relation and (h.schema, h."table", h.partition)
        is not distinct from (now.schema, now."table", now.partition)
)
on conflict (source_id, epoch, relation, from_position) do update
set schema = excluded.schema, "table" = excluded."table", partition = excluded.partition
"""


def place(cursor: psycopg.Cursor[Any], schema: str, held: Checkpoint, ddl: Ddl) -> None:
    """Keep what the statement's tables are called from its transaction on."""
    named: list[tuple[int, str | None, str | None, str | None]] = [
        (each.oid, each.schema, each.name, each.partition) for each in ddl.tables
    ]
    if ddl.dropped is not None:
        named.append((ddl.dropped, None, None, None))
    if not named and ddl.parted is None:
        return
    relations, schemas, tables, partitions = zip(*named, strict=True) if named else ((), (), (), ())
    root_schema, root = ddl.parted or (None, None)
    cursor.execute(
        sql.SQL(_PLACE).format(names=sql.Identifier(schema, "relation_names")),
        {
            "source": held.source_id,
            "epoch": held.epoch,
            "position": int(ddl.transaction.commit_lsn),
            "relations": list(relations),
            "schemas": list(schemas),
            "tables": list(tables),
            "partitions": list(partitions),
            "root_schema": root_schema,
            "root": root,
        },
    )
