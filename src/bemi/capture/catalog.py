"""Describes relations from the source's catalog: what the stream does not say.

The stream has neither the primary key (under REPLICA IDENTITY FULL every column is marked)
nor what a domain or an array is made of, nor the partitioned table above a partition.
The catalog is read now, while the stream is the past.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import psycopg

from bemi.capture import pg_catalog
from bemi.capture.encodings import Encoding
from bemi.capture.messages import Relation
from bemi.capture.pg_catalog import FIRST_USER_OID, Known
from bemi.change import Column, Table
from bemi.connections import explained
from bemi.store.versions import Placement


class Catalog:
    """Answers for one source through a connection of its own."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        encoding: Encoding,
        publication: str,
        placements: Mapping[int, tuple[Placement, int]] = MappingProxyType({}),
        keys: Mapping[int, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        """`placements`: what earlier looks saw, from `bemi.store.versions.placements`; `keys`: the
        columns of each table's key, from `last_keys`."""
        self._conn = conn
        self._placements = dict(placements)
        self._keys = dict(keys)
        self._encoding = encoding
        self._publication = publication
        self._seen: set[int] = set()
        self._types = pg_catalog.types(self._conn)

    def describe(self, relation: Relation) -> Table:
        """The table of a RELATION message.

        Where the catalog knows it by other names, or not at all, it is `inferred`: then its key is
        the one that it had before, or that has the places of the one that it has now; or it may be
        in another order than it was, or be the replica identity's columns. Where it
        was seen below another table before, or below none, it is `placed_since` this look.
        """
        self._see(relation.columns)
        known = self._look_up(relation.oid)
        key, certain = _key(relation, known, self._keys.get(relation.oid, ()))
        self._keys[relation.oid] = tuple(relation.columns[at].name for at in key)
        return self._placed(self._table(relation, known, key, certain))

    def table(self, oid: int) -> Table | None:
        """The table as the stream would describe it if it had a change now; None: it is gone.

        For rows that are read from the table itself, with the columns that are published.
        """
        known = self._look_up(oid)
        if known is None:
            return None
        sent = [
            each
            for each in known.attributes
            if not each.generated
            or (each.generated == "s" and pg_catalog.sends_stored(self._conn, self._publication))
        ]
        marked = known.identity_index if known.identity == "i" else known.key
        columns = tuple(
            Column(
                each.name,
                each.type_oid,
                in_identity=each.name in marked,
                modifier=each.modifier,
            )
            for each in sent
        )
        self._see(columns)
        relation = Relation(oid, known.schema, known.name, known.identity, columns)
        key, certain = _key(relation, known, ())
        return self._table(relation, known, key, certain)

    def _placed(self, table: Table) -> Table:
        """With where it is known to be below that table, or none: the stream does not tell."""
        above = (table.schema, table.name) if table.partition else None
        last = self._placements.get(table.oid)
        since = table.read_position
        if last is None or last[0] == above:
            since = 0 if last is None else last[1]
        self._placements[table.oid] = (above, since)
        return msgspec.structs.replace(table, placed_since=since)

    def _see(self, columns: Sequence[Column]) -> None:
        types = {column.type_oid for column in columns}
        if any(oid >= FIRST_USER_OID and oid not in self._seen for oid in types):
            self._types = pg_catalog.types(self._conn)
            self._seen |= types

    def _table(
        self, relation: Relation, known: Known | None, key: tuple[int, ...], certain: bool
    ) -> Table:
        attributes = {each.name: each for each in known.attributes} if known else {}
        parts: dict[int, dict[str, str]] = {}
        if any(column.type_oid >= FIRST_USER_OID for column in relation.columns):
            parts = pg_catalog.parts_of(self._conn, [relation.oid]).get(relation.oid, parts)
        columns = []
        for column in relation.columns:
            now = attributes.get(column.name)
            same = now is not None and now.type_oid == column.type_oid
            columns.append(
                msgspec.structs.replace(
                    column,
                    type_oid=self._base(column.type_oid),
                    number=now.number if now is not None and same else 0,
                    type=now.type if now is not None and same else "",
                    stamp=now.stamp if now is not None and same else 0,
                    filled=now is not None and now.filled,
                    generated=now.generated if now is not None and same else "",
                    parts=parts.get(now.number, {}) if now is not None and same else {},
                )
            )
        numbers = [each.number for each in columns if each.number]
        if numbers != sorted(numbers):
            # They are sent in the order of their numbers: names have changed places since.
            columns = [msgspec.structs.replace(each, number=0, stamp=0) for each in columns]
        above = known is not None and known.root_name is not None
        return Table(
            oid=relation.oid,
            schema=(known and known.root_schema) or relation.schema,
            name=(known and known.root_name) or relation.name,
            columns=tuple(columns),
            key=key,
            array_elements=self._elements_of(tuple(columns)),
            inferred=not certain,
            identity=relation.identity,
            partition=f"{relation.schema}.{relation.name}" if above else None,
            filenode=known.filenode if known else 0,
            membership=(known and known.membership) or 0,
            read_position=self._position(),
            attributes=known.numbered if known else 0,
        )

    def _look_up(self, oid: int) -> Known | None:
        return pg_catalog.look_up(self._conn, oid, self._publication, self._encoding)

    def _position(self) -> int:
        with explained("source"):
            row = self._conn.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
        assert row is not None
        return int(row[0])

    def _elements_of(self, columns: tuple[Column, ...]) -> dict[int, int]:
        return {
            column.type_oid: self._base(self._types.elements[column.type_oid])
            for column in columns
            if column.type_oid in self._types.elements
        }

    def _base(self, oid: int) -> int:
        while oid in self._types.domains:
            oid = self._types.domains[oid]
        return oid


def _key(
    relation: Relation, known: Known | None, before: tuple[str, ...]
) -> tuple[tuple[int, ...], bool]:
    """The positions of the key's columns, in the key's order, and whether they are certain.

    `before`: the columns of the key that it had when it was described last.
    """
    names = {column.name: at for at, column in enumerate(relation.columns)}
    marked = tuple(at for at, column in enumerate(relation.columns) if column.in_identity)
    identity = () if relation.identity == "f" else marked
    if known is None:
        return _former_key(relation, None, identity, before), False
    if relation.identity == "i" and {*marked} != {names.get(name) for name in known.key}:
        # Of a change of the primary key alone nothing is told: the index is what a row is known by.
        known = msgspec.structs.replace(known, key=known.identity_index)
    key = tuple(names[name] for name in known.key if name in names)
    moved = relation.identity == "d" and bool(identity) and {*key} != {*identity}
    if moved or len(key) != len(known.key):
        # The key is gone, or its columns have other names by now.
        return _former_key(relation, known, identity, before), False
    columns = [each.name for each in known.attributes if not each.generated]
    generated = {each.name for each in known.attributes if each.generated}
    sent = [name for name in names if name not in generated]
    certain = (
        (relation.schema, relation.name) == (known.schema, known.name)
        # Columns that were added since stand behind.
        and sent == columns[: len(sent)]
    )
    return key or identity, certain


def _former_key(
    relation: Relation, known: Known | None, identity: tuple[int, ...], before: tuple[str, ...]
) -> tuple[int, ...]:
    """Of a table that has another key by now: the one before, or one in the same places as now.

    If that is what identified the row; else what did, unless that was all of it.
    """
    names = {column.name: at for at, column in enumerate(relation.columns)}
    by_name = tuple(names[name] for name in before if name in names)
    if by_name and len(by_name) == len(before) and {*by_name} == {*(identity or by_name)}:
        return by_name
    if known is not None:
        sent = [each.name for each in known.attributes if not each.generated]
        by_place = tuple(sent.index(name) for name in known.key if name in sent)
        if {*by_place} == {*identity}:
            return by_place
    return identity
