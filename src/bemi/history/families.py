"""The tables that chosen changes are of, with what is needed to read their rows at any time.

A family is a table, or all partitions of one: rows move between these, and have one key.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.history.lives import Lost, Value
from bemi.history.shapes import shape_at, sources
from bemi.history.texts import values
from bemi.rules import Rules
from bemi.store import rules, shapes
from bemi.store.shapes import Shape

_FOR_EVER: Final = (1 << 63) - 1

_VERSIONS: Final = sql.SQL("""
select distinct on (relation) relation::bigint, schema, "table", partition,
    array(select v.value ->> 'name' from jsonb_array_elements(columns) v
        where coalesce(v.value ->> 'generated', '') <> ''),
    (select array_agg(distinct o."table") from {versions} o
        where o.source_id = %(source_id)s and o.relation = t.relation),
    (select array_agg(distinct o.epoch) from {versions} o
        where o.source_id = %(source_id)s and o.relation = t.relation)
from {versions} t
where source_id = %(source_id)s and ((schema, "table") in (
        select o.schema, o."table" from {versions} o
        where o.source_id = %(source_id)s and o.relation = any(%(relations)s)
            and o.partition is not null)
    or relation = any(%(relations)s))
order by relation, epoch desc, from_position desc, from_ordinal desc
""")


class Relation(msgspec.Struct, frozen=True):
    """A table that holds rows itself. `names`: all that its changes went by."""

    oid: int
    schema: str
    table: str
    partition: str | None
    generated: frozenset[str]
    names: tuple[str, ...]
    shapes: Mapping[int, list[Shape]]
    """By epoch, the oldest first."""

    @property
    def last(self) -> Shape:
        return self.shapes[max(self.shapes)][-1]

    def values(
        self, epoch: int, place: tuple[int, int], image: str, flags: Collection[str], *, whole: bool
    ) -> dict[str, Value]:
        """An image by the columns that the table has now; `whole`: it is of all columns."""
        was = shape_at(self.shapes.get(epoch, ()), place) or self.last
        found = values(image, flags, {column.name: column.type_oid for column in was.columns})
        if was.columns == self.last.columns:
            return found
        renamed: dict[str, Value] = {}
        for column in sources(was, self.last):
            if column.source in found:
                renamed[column.called] = found[column.source]
            elif whole and not column.filled and column.source is None:
                renamed[column.called] = None
        return renamed

    def dropped(self, epoch: int, place: tuple[int, int], names: Iterable[str]) -> set[str]:
        """Which of these columns of an image the table has no more."""
        was = shape_at(self.shapes.get(epoch, ()), place) or self.last
        if was.columns == self.last.columns:
            return set()
        return {*names} - {column.source for column in sources(was, self.last) if column.source}


class Family(msgspec.Struct, frozen=True, eq=False):
    relations: Mapping[int, Relation]
    main: Relation
    keyed: bool
    key: tuple[str, ...]
    """The columns by which rows are known, as they are called now; without a key, all of them."""
    excluded: frozenset[str] = frozenset()
    """The columns that rules have kept out of the history, at one time or another."""

    @property
    def name(self) -> str:
        return f"{self.main.schema}.{self.main.table}"

    @property
    def partitioned(self) -> bool:
        return self.main.partition is not None

    @property
    def names(self) -> list[str]:
        return sorted({name for each in self.relations.values() for name in each.names})

    @property
    def columns(self) -> list[str]:
        """Those that rows are written with."""
        return [
            column.name
            for column in self.main.last.columns
            if column.name not in self.main.generated
        ]

    def number(self, column: str) -> int:
        """A column's number in the catalog; 0 where it is not known."""
        return next((each.number for each in self.main.last.columns if each.name == column), 0)


def families(
    conn: psycopg.Connection[Any], schema: str, source_id: int, relations: Collection[int]
) -> list[Family]:
    """The families of these relations."""
    versions = sql.Identifier(schema, "table_versions")
    rows = conn.execute(
        _VERSIONS.format(versions=versions),
        {"source_id": source_id, "relations": [*relations]},
    ).fetchall()
    of: dict[object, list[Relation]] = {}
    for oid, schema_name, table, partition, generated, names, epochs in rows:
        if oid not in relations and partition is None:
            continue  # it had the name of one that is partitioned
        relation = Relation(
            oid,
            schema_name,
            table,
            partition,
            frozenset(generated),
            tuple(names),
            {
                epoch: shapes.read(conn, schema, source_id, epoch, oid, until=_FOR_EVER)
                for epoch in epochs
            },
        )
        of.setdefault(oid if partition is None else (schema_name, table), []).append(relation)
    every = rules.read(conn, schema, source_id).values()
    return [_family(each, every) for each in of.values()]


def _family(relations: list[Relation], every: Iterable[Rules]) -> Family:
    main = max(relations, key=lambda each: (max(each.shapes), each.last.place, each.oid))
    by_number = {column.number: column.name for column in main.last.columns if column.number}
    key = tuple(
        by_number.get(part, str(part)) if isinstance(part, int) else part
        for part, _ in main.last.key
    )
    called = [column.name for column in main.last.columns]
    excluded = frozenset(
        called[at]
        for each in every
        for at in each.for_table(main.schema, main.table, called).exclude
    )
    family = Family({each.oid: each for each in relations}, main, bool(key), key, excluded)
    return family if key else msgspec.structs.replace(family, key=tuple(family.columns))


def key_of(
    columns: Iterable[str], image: Mapping[str, Value], text: str | None
) -> tuple[Value, ...]:
    """The values of a row's key: from its image, or from the key's text where it lacks them."""
    names = [*columns]
    if all(name in image and not isinstance(image[name], Lost) for name in names):
        return tuple(image[name] for name in names)
    if text is None or text.startswith("sha256:"):
        return tuple(image.get(name, Lost("the history does not know it")) for name in names)
    if len(names) == 1:
        parts: list[Value] = [text]
    else:
        parts = [*msgspec.json.decode(text, type=list[str | None])]
    return tuple(
        image[name] if isinstance(image.get(name), Lost) else part
        for name, part in zip(names, parts, strict=True)
    )
