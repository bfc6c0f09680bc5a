"""The columns that a table had when: brings stored rows into the shape of a position.

A column is its number, whatever it was called; one that was added without a default is null in
older rows, and one that was dropped is gone from them. A table's shape is known from its changes,
so what was altered shows from the first change behind it on.
"""

from collections.abc import Set
from typing import Any, Final, Self

import msgspec
import psycopg
from psycopg import sql

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_NULL: Final = msgspec.Raw(b"null")


class _Column(msgspec.Struct, frozen=True):
    name: str
    number: int
    type_oid: int
    filled: bool = False


class _Shape(msgspec.Struct, frozen=True):
    place: tuple[int, int]
    columns: tuple[_Column, ...]
    key: tuple[tuple[object, int], ...]
    """The key's columns, by number where it is known, and their types."""


class Shapes:
    """Of one relation in one epoch, until a position, the oldest first."""

    def __init__(self, shapes: list[_Shape]) -> None:
        self._shapes = shapes

    @classmethod
    def read(
        cls,
        conn: psycopg.Connection[Any],
        schema: str,
        *,
        source_id: int,
        epoch: int,
        relation: int,
        position: int,
    ) -> Self:
        rows = conn.execute(
            sql.SQL(
                "select from_position, from_ordinal, columns, primary_key from {} "
                "where source_id = %s and epoch = %s and relation = %s and from_position <= %s "
                "order by from_position, from_ordinal"
            ).format(sql.Identifier(schema, "table_versions")),
            [source_id, epoch, relation, position],
        )
        return cls([_shape(*row) for row in rows])

    def key_changed(self, start: int) -> int | None:
        """Where behind `start` the table got another key, if it did."""
        last: _Shape | None = None
        for shape in self._shapes:
            if last is not None and shape.place[0] > start and shape.key != last.key:
                return shape.place[0]
            last = shape
        return None

    def shaped(
        self, image: msgspec.Raw, flags: Set[str], place: tuple[int, int], stale: Set[str]
    ) -> tuple[msgspec.Raw, frozenset[str]]:
        """A row as a change at `place` left it, in the last shape; with `stale` among its flags."""
        was = next((each for each in reversed(self._shapes) if each.place <= place), None)
        if was is None or was.columns == (now := self._shapes[-1]).columns:
            return image, frozenset(flags | stale)
        values = _decode(image)
        shaped: dict[str, msgspec.Raw] = {}
        renamed: dict[str, str] = {}
        known = {column.number: column for column in was.columns if column.number}
        names = {column.name: column for column in was.columns}
        for column in now.columns:
            before = known.get(column.number)
            same_name = names.get(column.name)
            if before is None and same_name and not (same_name.number and column.number):
                before = same_name
            if before is not None and before.name in values:
                shaped[column.name] = values[before.name]
                renamed[before.name] = column.name
            elif before is None and same_name is None and column.name in values:
                # What a baseline read was newer than the shape that is known.
                shaped[column.name] = values[column.name]
            elif before is None and not column.filled:
                shaped[column.name] = _NULL
        gone = {column.name for column in was.columns} - renamed.keys()
        kept = {
            f"{word}:{renamed.get(name, name)}" if name else word
            for word, _, name in (flag.partition(":") for flag in flags)
            if name not in gone
        }
        return msgspec.Raw(_encode(shaped)), frozenset(kept | stale)


def _shape(position: int, ordinal: int, columns: Any, key: list[str]) -> _Shape:
    read = tuple(msgspec.convert(columns, list[_Column]))
    of = {column.name: column for column in read}
    return _Shape(
        (position, ordinal),
        read,
        tuple(
            (column.number or name, column.type_oid)
            for name in key
            if (column := of.get(name)) is not None
        ),
    )
