"""The columns and the key that a table had when, as its versions tell them.

A column is its number, whatever it is called. Where the catalog no longer knew it when its change
was read, it is the one that had its name before.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql


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


_REWRITTEN: Final[LiteralString] = """
(select max(g.to_position) from {gaps} g
where g.source_id = v.source_id and g.epoch = v.epoch and g.relation = v.relation
    and g.columns && v.primary_key and g.to_position = greatest(v.read_position, v.from_position))
"""


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
            "select v.from_position, v.from_ordinal, v.columns, v.primary_key, {rewritten} "
            "from {versions} v where source_id = %s and epoch = %s and relation = %s "
            "and from_position <= %s order by from_position, from_ordinal"
        ).format(**_names(schema)),
        [source_id, epoch, relation, until],
    )
    return _shapes(rows)


def read_of_open(
    conn: psycopg.Connection[Any], schema: str, source_id: int
) -> dict[int, tuple[int, list[Shape]]]:
    """By open interval, where it begins and the shapes of its table, if it has several there."""
    rows = conn.execute(
        sql.SQL(
            "select i.interval_id, i.from_position, v.from_position, v.from_ordinal, v.columns, "
            "v.primary_key, {rewritten} from {intervals} i "
            "join {versions} v using (source_id, epoch, relation) "
            "where i.source_id = %s and i.to_position is null and exists (select from {versions} l "
            "where l.source_id = i.source_id and l.epoch = i.epoch and l.relation = i.relation "
            "and greatest(l.from_position, l.read_position) > i.from_position) "
            "order by i.interval_id, v.from_position, v.from_ordinal"
        ).format(**_names(schema)),
        [source_id],
    )
    of: dict[int, tuple[int, list[tuple[Any, ...]]]] = {}
    for interval_id, start, *version in rows:
        of.setdefault(interval_id, (start, []))[1].append(tuple(version))
    return {
        interval_id: (start, _shapes(versions)) for interval_id, (start, versions) in of.items()
    }


def key_changes(shapes: Iterable[Shape], start: int) -> Iterator[tuple[int, int]]:
    """Where rows may have got other keys behind `start`: the commit positions from and until.

    Of another key, the stream tells where it begins. That its values were rewritten is seen in
    the catalog only, at the first change behind that, or before where the stream is late.
    """
    last: Shape | None = None
    for shape in shapes:
        place = shape.place[0]
        if last is not None and shape.key != last.key:
            if place > start:
                yield place, place
        elif shape.rewritten is not None and shape.rewritten > start:
            yield place, shape.rewritten
        last = shape


def _names(schema: str) -> dict[str, sql.Composable]:
    return {
        "intervals": sql.Identifier(schema, "intervals"),
        "rewritten": sql.SQL(_REWRITTEN).format(gaps=sql.Identifier(schema, "gaps")),
        "versions": sql.Identifier(schema, "table_versions"),
    }


def _shapes(rows: Iterable[tuple[Any, ...]]) -> list[Shape]:
    found: list[Shape] = []
    known: dict[tuple[str, int], int] = {}
    for position, ordinal, raw, key, rewritten in rows:
        told = msgspec.convert(raw, list[ShapeColumn])
        unknown = {column.name for column in told if not column.number}
        columns = tuple(
            column
            if column.number
            else msgspec.structs.replace(
                column, number=known.get((column.name, column.type_oid), 0)
            )
            for column in told
        )
        known = {(column.name, column.type_oid): column.number for column in columns}
        of = {column.name: column for column in columns}
        found.append(
            Shape(
                (position, ordinal),
                columns,
                tuple(
                    (column.number or name, column.type_oid)
                    for name in key
                    if (column := of.get(name)) is not None
                ),
                # One that has another type by now: the stream will tell where.
                None if unknown & {*key} else rewritten,
            )
        )
    return found
