"""What tables and types were made of, and from where on: rows that differ from those before."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bemi.lsn import Lsn


class Definition(msgspec.Struct, frozen=True):
    """Of a table or a type. `definition` is as the view `definitions` has it; None: it is gone."""

    kind: str
    oid: int
    schema: str
    name: str
    definition: Mapping[str, Any] | None

    @property
    def of(self) -> tuple[str, int]:
        return self.kind, self.oid


def read_last(
    conn: psycopg.Connection[Any], schema: str, source_id: int, epoch: int
) -> dict[tuple[str, int], Definition]:
    """The last that was seen in an epoch, of what is not gone."""
    rows = conn.execute(
        sql.SQL(
            "select distinct on (kind, oid) kind, oid::bigint, schema, name, definition from {} "
            "where source_id = %s and epoch = %s order by kind, oid, from_position desc"
        ).format(sql.Identifier(schema, "definitions_seen")),
        [source_id, epoch],
    )
    found = (Definition(*row) for row in rows.fetchall())
    return {each.of: each for each in found if each.definition is not None}


def differing(
    before: Mapping[tuple[str, int], Definition], now: Iterable[Definition]
) -> list[Definition]:
    """What is other than it was, and what is gone."""
    left = dict(before)
    found = [each for each in now if left.pop(each.of, None) != each]
    return found + [msgspec.structs.replace(each, definition=None) for each in left.values()]


def write(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    epoch: int,
    found: Iterable[Definition],
    *,
    position: Lsn,
    after: Lsn | None,
) -> None:
    """Keep what was seen at `position`, and at `after`, where that is known, not yet."""
    with conn.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                "insert into {} (source_id, epoch, kind, oid, from_position, after_position, "
                "schema, name, definition) values (%s, %s, %s, %s, %s, %s, %s, %s, %s) "
                "on conflict do nothing"
            ).format(sql.Identifier(schema, "definitions_seen")),
            [
                (
                    source_id,
                    epoch,
                    each.kind,
                    each.oid,
                    int(position),
                    None if after is None else int(after),
                    each.schema,
                    each.name,
                    None if each.definition is None else Jsonb(each.definition),
                )
                for each in found
            ],
        )


def at(
    conn: psycopg.Connection[Any], schema: str, source: str, epoch: int, position: Lsn
) -> dict[tuple[str, int], Definition]:
    """What held at a position, as far as it was seen.

    Of what was altered between two looks, with the position between them, what was before; but of
    a table what came then, where it has that name or those columns already.
    """
    rows = conn.execute(
        sql.SQL(
            "select d.kind, d.oid::bigint, d.schema, d.name, d.definition"
            " from {} s, {}(s.source_id, %s, %s) d where s.name = %s"
        ).format(sql.Identifier(schema, "sources"), sql.Identifier(schema, "definitions_at")),
        [epoch, int(position), source],
    )
    found = {each.of: each for each in (Definition(*row) for row in rows.fetchall())}
    rows = conn.execute(
        sql.SQL(
            "select kind, oid::bigint, schema, name, definition from {} where source = %s"
            " and epoch = %s and from_position > %s and after_position <= %s"
            " and kind = 'table' and definition is not null"
        ).format(sql.Identifier(schema, "definitions")),
        [source, epoch, int(position), int(position)],
    )
    following = [Definition(*row) for row in rows.fetchall()]
    there = shown(conn, schema, source, epoch, position) if following else {}
    for each in following:
        before, columns = found.get(each.of), there.get((each.schema, each.name))
        if before is None or columns is None:
            continue
        is_gone = (before.schema, before.name) not in there
        if (is_gone or not _fits(before, columns)) and _fits(each, columns):
            found[each.of] = each
    return found


def shown(
    conn: psycopg.Connection[Any], schema: str, source: str, epoch: int, position: Lsn
) -> dict[tuple[str, str], set[str] | None]:
    """The tables that there were by the stream and its names, with the columns, if it told any."""
    rows = conn.execute(
        sql.SQL(
            'select schema, "table", columns is null,'
            " array(select c ->> 'name' from jsonb_array_elements(columns) c)"
            " from {}(lsn => %s::pg_lsn, epoch => %s, source => %s)"
        ).format(sql.Identifier(schema, "tables_at")),
        [str(position), epoch, source],
    )
    return {(of, name): None if untold else {*columns} for of, name, untold, columns in rows}


def may_be_there(
    conn: psycopg.Connection[Any], schema: str, source: str, epoch: int, position: Lsn
) -> set[tuple[str, str]]:
    """The names that tables got between two looks, of which one was before the position."""
    rows = conn.execute(
        sql.SQL(
            'select n.schema, n."table" from {} n join {} s using (source_id) where s.name = %s'
            " and n.epoch = %s and n.from_position > %s and n.after_position < %s"
        ).format(sql.Identifier(schema, "relation_names"), sql.Identifier(schema, "sources")),
        [source, epoch, int(position), int(position)],
    )
    return {(of, name) for of, name in rows}


def _fits(table: Definition, told: set[str]) -> bool:
    columns = (table.definition or {})["columns"]
    generated = {each["name"] for each in columns if each["generated"]}
    return {each["name"] for each in columns} - generated == told - generated


class ForeignKey(msgspec.Struct, frozen=True):
    """Of the tables that are tracked, by their names with their schemas. `parent_key`: the columns
    of the parent's primary key, empty where it has none."""

    child: str
    columns: list[str]
    parent: str
    referenced: list[str]
    parent_key: list[str]


def foreign_keys(
    conn: psycopg.Connection[Any], schema: str, source: str, table: str
) -> list[ForeignKey]:
    """Those of a table, and those that refer to it, as they were seen last."""
    rows = conn.execute(
        sql.SQL(
            "with last as materialized ("
            " select distinct on (oid) oid::bigint, schema || '.' || name as name, definition"
            " from {definitions} where source = %(source)s and kind = 'table'"
            " and epoch = (select max(epoch) from {definitions} where source = %(source)s)"
            " order by oid, from_position desc)"
            " select c.name, k -> 'columns', p.name, k -> 'referenced',"
            " coalesce((select u -> 'columns'"
            " from jsonb_array_elements(p.definition -> 'constraints') u"
            " where u ->> 'kind' = 'p'), '[]')"
            " from last c cross join jsonb_array_elements(c.definition -> 'constraints') k"
            " join last p on p.oid = (k ->> 'references')::bigint and p.definition is not null"
            " where c.definition is not null and k ->> 'kind' = 'f' and k ? 'referenced'"
            " and (c.name = %(table)s or p.name = %(table)s)"
            " order by p.name <> %(table)s desc, c.name, k ->> 'name'"
        ).format(definitions=sql.Identifier(schema, "definitions")),
        {"source": source, "table": table},
    )
    return [ForeignKey(*row) for row in rows.fetchall()]
