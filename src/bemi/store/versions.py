"""The versions of each table: names, columns, types, key, and from which change on they hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bemi.change import Table

Place = tuple[int, int, int]
"""Epoch, commit position, ordinal."""


class StoredColumn(msgspec.Struct, frozen=True):
    """`number` is its attnum, 0 when the catalog no longer knew it; see `bemi.change.Column`."""

    name: str
    number: int
    type: str
    type_oid: int
    stamp: int
    filled: bool = False
    generated: str = ""
    parts: dict[str, str] = {}
    modifier: int = -1


class StoredVersion(msgspec.Struct, frozen=True):
    """A table from a change on. `table` is the one above a partition; `partition` its own name.

    The stream tells names and types, the catalog numbers, stamps and the filenode, as they were
    when the log was at `read_position`: that may be long after the change.
    """

    relation: int
    schema: str
    table: str
    partition: str | None
    columns: tuple[StoredColumn, ...]
    primary_key: tuple[str, ...]
    replica_identity: str
    filenode: int
    inferred: bool
    read_position: int
    place: Place = (0, 0, 0)
    told: bool = False
    """By an event trigger, at this very place."""
    attributes: int = 0
    """How many columns the catalog had numbered when it was read: more than the stream knew of, if
    some were added since."""

    def alike(self, other: "StoredVersion") -> bool:
        """Whether nothing that a reader of the history could see differs."""
        return _without_place(self) == _without_place(other)

    def outlives(self, other: "StoredVersion") -> bool:
        """Whether a later version tells nothing new: the stream has what it had, and the catalog
        no longer knows how it was."""
        return (
            (other.inferred or any(not column.number for column in other.columns))
            and self.replica_identity == other.replica_identity
            and [(each.name, each.type_oid) for each in self.columns]
            == [(each.name, each.type_oid) for each in other.columns]
        )


def version_of(table: Table) -> StoredVersion:
    return StoredVersion(
        relation=table.oid,
        schema=table.schema,
        table=table.name,
        partition=table.partition,
        columns=tuple(
            StoredColumn(
                column.name,
                column.number,
                column.type,
                column.type_oid,
                column.stamp,
                column.filled,
                column.generated,
                column.parts,
                column.modifier,
            )
            for column in table.columns
        ),
        primary_key=tuple(table.columns[at].name for at in table.key),
        replica_identity=table.identity,
        filenode=table.filenode,
        inferred=table.inferred,
        read_position=table.read_position,
        told=table.told,
        attributes=table.attributes,
    )


def rewritten(before: StoredVersion, after: StoredVersion) -> list[str]:
    """Columns that may have got other values without a change: their older values prove nothing.

    Another type; a new column that older rows have a value in, or of which nothing is known; a
    column that was altered when the table was rewritten, which is how `alter column … type … using`
    looks; or one whose type spells its values otherwise. A column that has another number is
    another column, whatever its name.
    """
    named = {column.name: column for column in before.columns}
    numbered = {column.number: column for column in before.columns if column.number}
    moved = before.filenode != after.filenode
    return [
        column.name
        for column in after.columns
        if may_differ(named.get(column.name) or numbered.get(column.number), column, moved=moved)
    ]


def may_differ(was: StoredColumn | None, column: StoredColumn, *, moved: bool) -> bool:
    """Whether a column's values may be others than what it was had, None where it is new; `moved`:
    the table was rewritten in between."""
    if was is None:
        return column.filled or moved or not column.number
    return (
        was.type_oid != column.type_oid
        or bool(was.number and column.number and was.number != column.number)
        or (moved and was.stamp != column.stamp)
        or respelled(was.parts, column.parts)
    )


def differs(before: StoredVersion | None, after: StoredVersion) -> bool:
    """Whether the one behind tells anything that the one before did not."""
    return before is None or not before.alike(after) or bool(rewritten(before, after))


def respelled(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether a label was renamed, or a composite type has other attributes."""
    return any(before.get(part, text) != text for part, text in after.items())


Placement = tuple[str, str] | None
"""Schema and name of the partitioned table above a table; None: it is no partition."""


def placements(
    versions: Mapping[int, Sequence[StoredVersion]], epoch: int
) -> dict[int, tuple[Placement, int]]:
    """Below which table each was seen last, and where the log of the epoch was at the first look
    that saw it there: 0 where it was there at all looks."""
    found: dict[int, tuple[Placement, int]] = {}
    for relation, known in versions.items():
        for version in known:
            above = (version.schema, version.table) if version.partition else None
            last = found.get(relation)
            if last is None or last[0] == above:
                since = 0 if last is None else last[1]
            else:
                since = version.read_position if version.place[0] == epoch else 0
            found[relation] = (above, since)
    return found


def last_keys(
    versions: Mapping[int, Sequence[StoredVersion]], epoch: int
) -> dict[int, tuple[str, ...]]:
    """The columns of the key that each table had last, by relation."""
    return {
        relation: known[-1].primary_key
        for relation, known in versions.items()
        if known[-1].place[0] == epoch
    }


def read(
    conn: psycopg.Connection[Any] | psycopg.Cursor[Any],
    schema: str,
    source_id: int,
    relation: int | None = None,
) -> dict[int, list[StoredVersion]]:
    """All versions of a source's tables, or of one, by relation, as the catalog was read."""
    rows = conn.execute(
        sql.SQL(
            'select relation::bigint, schema, "table", partition, columns, primary_key, '
            "replica_identity, filenode, inferred, read_position, told, attributes, "
            "epoch, from_position, from_ordinal "
            "from {} where source_id = %s and (%s::oid is null or relation = %s) "
            "order by epoch, read_position, from_position, from_ordinal"
        ).format(sql.Identifier(schema, "table_versions")),
        [source_id, relation, relation],
    )
    found: dict[int, list[StoredVersion]] = {}
    for each, schema_name, table, partition, columns, *rest, epoch, position, ordinal in rows:
        key, identity, filenode, inferred, read_position, told, attributes = rest
        version = StoredVersion(
            each,
            schema_name,
            table,
            partition,
            tuple(msgspec.convert(columns, list[StoredColumn])),
            tuple(key),
            identity,
            filenode,
            inferred,
            read_position,
            (epoch, position, ordinal),
            told,
            attributes,
        )
        found.setdefault(each, []).append(version)
    return found


def count(cursor: psycopg.Cursor[Any], schema: str, source_id: int) -> int:
    """How many versions there are, by which new ones are noticed: none ever goes."""
    row = cursor.execute(
        sql.SQL("select count(*) from {} where source_id = %s").format(
            sql.Identifier(schema, "table_versions")
        ),
        [source_id],
    ).fetchone()
    assert row is not None
    return int(row[0])


def read_filenodes(conn: psycopg.Connection[Any], schema: str, source_id: int) -> dict[int, int]:
    """The filenode of each table as the catalog was read last."""
    rows = conn.execute(
        sql.SQL(
            "select distinct on (relation) relation::bigint, filenode from {} "
            "where source_id = %s order by relation, epoch desc, read_position desc, "
            "from_position desc, from_ordinal desc"
        ).format(sql.Identifier(schema, "table_versions")),
        [source_id],
    )
    return dict(rows.fetchall())


def at_place(known: Sequence[StoredVersion], place: Place) -> StoredVersion | None:
    """The version that holds there, however late the others were read."""
    older = [version for version in known if version.place <= place]
    return max(older, key=lambda version: version.place, default=None)


def insert(
    cursor: psycopg.Cursor[Any] | psycopg.Connection[Any],
    schema: str,
    source_id: int,
    version: StoredVersion,
) -> None:
    """Keep a version from its place on; once. What is told later of the same place holds there."""
    epoch, position, ordinal = version.place
    cursor.execute(
        sql.SQL(
            "insert into {} (source_id, epoch, relation, from_position, from_ordinal, schema, "
            '"table", partition, columns, primary_key, replica_identity, filenode, inferred, '
            "read_position, told, attributes) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
            "on conflict (source_id, epoch, relation, from_position, from_ordinal) do update set "
            'schema = excluded.schema, "table" = excluded."table", partition = excluded.partition, '
            "columns = excluded.columns, primary_key = excluded.primary_key, "
            "replica_identity = excluded.replica_identity, filenode = excluded.filenode, "
            "inferred = excluded.inferred, read_position = excluded.read_position, "
            "attributes = excluded.attributes, told = true "
            "where excluded.told"
        ).format(sql.Identifier(schema, "table_versions")),
        [
            source_id,
            epoch,
            version.relation,
            position,
            ordinal,
            version.schema,
            version.table,
            version.partition,
            Jsonb(msgspec.to_builtins(version.columns)),
            list(version.primary_key),
            version.replica_identity,
            version.filenode,
            version.inferred,
            version.read_position,
            version.told,
            version.attributes,
        ],
    )


def _without_place(version: StoredVersion) -> StoredVersion:
    """Nor the stamps, which change with every statistics target."""
    columns = tuple(
        msgspec.structs.replace(column, stamp=0, filled=False) for column in version.columns
    )
    return msgspec.structs.replace(
        version, columns=columns, read_position=0, place=(0, 0, 0), told=False, attributes=0
    )
