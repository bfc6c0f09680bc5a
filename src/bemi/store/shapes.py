"""The columns and the key that a table had when, as its versions tell them.

A column is its number, whatever it is called. Where the catalog no longer knew it when its change
was read, it is the one that had its name before.
"""

from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bemi.observed import KnownTable


class ShapeColumn(msgspec.Struct, frozen=True):
    """`number` is 0 where it is not known."""

    name: str
    number: int
    type_oid: int
    filled: bool = False


class Shape(msgspec.Struct, frozen=True):
    """From the change at `place`, its commit position and ordinal, on."""

    place: tuple[int, int]
    columns: tuple[ShapeColumn, ...]
    key: tuple[tuple[int | str, int], ...]
    """The key's columns by number, or by name, and their types."""
    rewritten: int | None = None
    """Until which position DDL may have given rows other values in the key's columns."""


def read(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    epoch: int,
    relation: int,
    *,
    until: int,
) -> list[Shape]:
    """The shapes of a table in an epoch up to a position, the oldest first."""
    rows = conn.execute(
        sql.SQL(
            "select commit_position, ordinal, columns, key, rewritten "
            "from {}(%s::smallint, %s::int, %s::oid, %s::bigint)"
        ).format(sql.Identifier(schema, "shapes")),
        [source_id, epoch, relation, until],
    )
    return [
        Shape(
            (position, ordinal),
            tuple(msgspec.convert(columns, list[ShapeColumn])),
            tuple(msgspec.convert(key, list[tuple[int | str, int]])),
            rewritten,
        )
        for position, ordinal, columns, key, rewritten in rows
    ]


def last(conn: psycopg.Connection[Any], schema: str, source: str) -> list[KnownTable]:
    """The tables of the source called so, each as it was known last, by their names."""
    rows = conn.execute(
        sql.SQL(
            'select distinct on (v.schema, v."table") v.schema, v."table", '
            "array(select c ->> 'name' from jsonb_array_elements(v.columns) c), "
            "v.primary_key, v.replica_identity "
            "from {} v join {} s using (source_id) where s.name = %s "
            'order by v.schema, v."table", v.epoch desc, v.read_position desc, '
            "v.from_position desc, v.from_ordinal desc"
        ).format(sql.Identifier(schema, "table_versions"), sql.Identifier(schema, "sources")),
        [source],
    )
    return [
        KnownTable(name, table, tuple(columns), tuple(key), identity)
        for name, table, columns, key, identity in rows
    ]


def key_changes(conn: psycopg.Connection[Any], schema: str, source_id: int) -> dict[int, int]:
    """By open interval, until where rows of its table got other keys first, if they did.

    Of another key, the stream tells where it begins. That its values were rewritten is seen in
    the catalog only, at the first change behind that, or before where the stream is late.
    """
    rows = conn.execute(
        sql.SQL(
            "select i.interval_id, min(k.until_position) from {intervals} i "
            "cross join lateral {key_changes}("
            "i.source_id, i.epoch, i.relation, i.from_position) k "
            "where i.source_id = %s and i.to_position is null and exists (select from {versions} l "
            "where l.source_id = i.source_id and l.epoch = i.epoch and l.relation = i.relation "
            "and greatest(l.from_position, l.read_position) > i.from_position) "
            "group by i.interval_id order by i.interval_id"
        ).format(
            intervals=sql.Identifier(schema, "intervals"),
            key_changes=sql.Identifier(schema, "key_changes"),
            versions=sql.Identifier(schema, "table_versions"),
        ),
        [source_id],
    )
    return dict(rows.fetchall())
