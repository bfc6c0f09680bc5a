"""Describes relations from the source's catalog: what the stream does not say.

The stream has neither the primary key (under REPLICA IDENTITY FULL every column is marked)
nor what a domain or an array is made of, nor the partitioned table above a partition.
The catalog is read now, while the stream is the past.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, LiteralString

import msgspec
import psycopg

from bemi.capture.encodings import Encoding
from bemi.capture.messages import Relation
from bemi.change import Column, Table
from bemi.connections import explained
from bemi.store.versions import Placement

_FIRST_USER_OID = 16384

_TYPES = """
select t.oid::bigint, t.typtype = 'd', t.typbasetype::bigint, t.typelem::bigint
from pg_catalog.pg_type t
where t.typtype = 'd'
   or (t.typinput = 'pg_catalog.array_in'::regproc
       and (select e.typdelim from pg_catalog.pg_type e where e.oid = t.typelem) = ',')
"""

# A primary key that is deferrable is no key: of two rows that have it for a while in a transaction,
# no change of the one could be told from one of the other.
#
# Names in the encoding of the stream's, unconverted where those are: then no name is too odd
# to be read, and equal ones are equal.
_RELATION = """
select
    (select array_agg(convert_to(a.attname::text, %(encoding)s) order by k.ordinality)
     from pg_catalog.pg_index i,
          unnest(i.indkey::int2[]) with ordinality k (attnum, ordinality)
          join pg_catalog.pg_attribute a on a.attnum = k.attnum
     where i.indrelid = c.oid and i.indisprimary and i.indimmediate and a.attrelid = c.oid
       and k.ordinality <= i.indnkeyatts),
    (select array_agg(convert_to(a.attname::text, %(encoding)s) order by k.ordinality)
     from pg_catalog.pg_index i,
          unnest(i.indkey::int2[]) with ordinality k (attnum, ordinality)
          join pg_catalog.pg_attribute a on a.attnum = k.attnum
     where i.indrelid = c.oid and i.indisreplident and a.attrelid = c.oid
       and k.ordinality <= i.indnkeyatts),
    (select array_agg(convert_to(a.attname::text, %(encoding)s) order by a.attnum)
     from pg_catalog.pg_attribute a
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    (select array_agg(convert_to(format_type(a.atttypid, a.atttypmod), %(encoding)s)
        order by a.attnum)
     from pg_catalog.pg_attribute a
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    (select array_agg(array[a.attnum::text, a.atttypid::bigint::text, a.attgenerated::text]
        order by a.attnum)
     from pg_catalog.pg_attribute a
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    (select array_agg(array[(a.xmin::text::bigint)::text, a.atthasmissing::text]
        order by a.attnum)
     from pg_catalog.pg_attribute a
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    c.relreplident::text,
    c.relfilenode::bigint,
    (select m.oid::bigint
     from pg_catalog.pg_publication_rel m join pg_catalog.pg_publication p on p.oid = m.prpubid
     where m.prrelid = c.oid and p.pubname = %(publication)s),
    convert_to(n.nspname::text, %(encoding)s),
    convert_to(c.relname::text, %(encoding)s),
    convert_to(rn.nspname::text, %(encoding)s),
    convert_to(r.relname::text, %(encoding)s)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_class r
    on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
where c.oid = %(oid)s
"""


# Down to the types that arrays, domains, ranges and composite types are made of.
_PARTS: LiteralString = """
with recursive made_of (relation, attnum, oid) as (
    select a.attrelid, a.attnum, a.atttypid
    from pg_catalog.pg_attribute a
    where a.attrelid = any(%(oids)s::oid[]) and a.attnum > 0 and not a.attisdropped
        and a.atttypid >= %(first)s::oid
    union
    select m.relation, m.attnum, part.oid
    from made_of m
    join pg_catalog.pg_type t on t.oid = m.oid
    cross join lateral (
        select t.typelem as oid union all select t.typbasetype
        union all select r.rngsubtype from pg_catalog.pg_range r
            where t.oid in (r.rngtypid, r.rngmultitypid)
        union all select a.atttypid from pg_catalog.pg_attribute a
            where a.attrelid = nullif(t.typrelid, 0) and a.attnum > 0 and not a.attisdropped
    ) part
    where part.oid >= %(first)s::oid
)
select m.relation::bigint, m.attnum::int, e.oid::bigint::text,
    left(md5(e.enumlabel::text), 8)
from made_of m join pg_catalog.pg_enum e on e.enumtypid = m.oid
union all
select m.relation::bigint, m.attnum::int, t.oid::bigint::text,
    string_agg(a.attnum::text, ',' order by a.attnum)
from made_of m
join pg_catalog.pg_type t on t.oid = m.oid
join pg_catalog.pg_attribute a
    on a.attrelid = nullif(t.typrelid, 0) and a.attnum > 0 and not a.attisdropped
group by 1, 2, 3
"""


class _Attribute(msgspec.Struct, frozen=True):
    """A column as the catalog has it; `generated`: empty, s(tored) or v(irtual).

    `stamp` changes whenever the catalog's row of it does; `filled` says that rows which were
    there before the column have a value in it that no change told.
    """

    name: str
    number: int
    type_oid: int
    generated: str
    type: str
    stamp: int
    filled: bool


class _Known(msgspec.Struct, frozen=True):
    """What the catalog knows of a relation now."""

    key: list[str]
    identity_index: list[str]
    """Columns of the index that REPLICA IDENTITY USING INDEX names."""
    attributes: list[_Attribute]
    identity: str
    filenode: int
    membership: int | None
    schema: str
    name: str
    root_schema: str | None
    root_name: str | None


class Catalog:
    """Answers for one source through a connection of its own."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        encoding: Encoding,
        publication: str,
        placements: Mapping[int, tuple[Placement, int]] = MappingProxyType({}),
    ) -> None:
        """`placements`: what earlier looks saw, from `bemi.store.versions.placements`."""
        self._conn = conn
        self._placements = dict(placements)
        self._encoding = encoding
        self._publication = publication
        self._seen: set[int] = set()
        self._load_types()

    def describe(self, relation: Relation) -> Table:
        """The table of a RELATION message.

        Where the catalog knows it by other names, or not at all, it is `inferred`: then its
        key may be in another order than it was, or be the replica identity's columns. Where it
        was seen below another table before, or below none, it is `placed_since` this look.
        """
        self._see(relation.columns)
        known = self._look_up(relation.oid)
        key, certain = _key(relation, known)
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
            if not each.generated or (each.generated == "s" and self._sends_stored())
        ]
        marked = known.identity_index if known.identity == "i" else known.key
        columns = tuple(
            Column(each.name, each.type_oid, in_identity=each.name in marked) for each in sent
        )
        self._see(columns)
        relation = Relation(oid, known.schema, known.name, known.identity, columns)
        key, certain = _key(relation, known)
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

    def _sends_stored(self) -> bool:
        with explained("source"):
            row = self._conn.execute(
                "select to_jsonb(p) ->> 'pubgencols' = 's' from pg_catalog.pg_publication p"
                " where p.pubname = %s",
                [self._publication],
            ).fetchone()
        return row is not None and bool(row[0])

    def _see(self, columns: Sequence[Column]) -> None:
        types = {column.type_oid for column in columns}
        if any(oid >= _FIRST_USER_OID and oid not in self._seen for oid in types):
            self._load_types()
            self._seen |= types

    def _table(
        self, relation: Relation, known: _Known | None, key: tuple[int, ...], certain: bool
    ) -> Table:
        attributes = {each.name: each for each in known.attributes} if known else {}
        parts: dict[int, dict[str, str]] = {}
        if any(column.type_oid >= _FIRST_USER_OID for column in relation.columns):
            parts = parts_of(self._conn, [relation.oid]).get(relation.oid, parts)
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
        )

    def _look_up(self, oid: int) -> _Known | None:
        with explained("source"):
            # In binary, whatever bytea_output the role prefers.
            row = self._conn.execute(
                _RELATION,
                {"oid": oid, "encoding": self._encoding.client, "publication": self._publication},
                binary=True,
            ).fetchone()
        if row is None:
            return None
        key, index, names, types, details, stamps, identity, filenode, membership, *above = row
        schema, name, root_schema, root_name = above
        return _Known(
            key=[self._text(each) for each in key or ()],
            identity_index=[self._text(each) for each in index or ()],
            attributes=[
                _Attribute(
                    self._text(each),
                    int(number),
                    int(type_oid),
                    generated,
                    self._text(kind),
                    int(stamp),
                    filled == "true",
                )
                for each, kind, (number, type_oid, generated), (stamp, filled) in zip(
                    names or (), types or (), details or (), stamps or (), strict=True
                )
            ],
            identity=identity,
            filenode=filenode,
            membership=membership,
            schema=self._text(schema),
            name=self._text(name),
            root_schema=None if root_schema is None else self._text(root_schema),
            root_name=None if root_name is None else self._text(root_name),
        )

    def _position(self) -> int:
        with explained("source"):
            row = self._conn.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
        assert row is not None
        return int(row[0])

    def _text(self, name: bytes) -> str:
        return name.decode(self._encoding.text, "backslashreplace")

    def _elements_of(self, columns: tuple[Column, ...]) -> dict[int, int]:
        return {
            column.type_oid: self._base(self._elements[column.type_oid])
            for column in columns
            if column.type_oid in self._elements
        }

    def _base(self, oid: int) -> int:
        while oid in self._domains:
            oid = self._domains[oid]
        return oid

    def _load_types(self) -> None:
        self._domains: dict[int, int] = {}
        self._elements: dict[int, int] = {}
        with explained("source"):
            for oid, is_domain, base, element in self._conn.execute(_TYPES):
                if is_domain:
                    self._domains[oid] = base
                else:
                    self._elements[oid] = element


def parts_of(
    conn: psycopg.Connection[Any], relations: Sequence[int]
) -> dict[int, dict[int, dict[str, str]]]:
    """Of tables with columns of types that somebody made: see `Column.parts`, by their numbers."""
    found: dict[int, dict[int, dict[str, str]]] = {}
    with explained("source"):
        for relation, number, part, text in conn.execute(
            _PARTS, {"oids": list(relations), "first": _FIRST_USER_OID}
        ):
            found.setdefault(relation, {}).setdefault(number, {})[part] = text
    return found


def _key(relation: Relation, known: _Known | None) -> tuple[tuple[int, ...], bool]:
    """The positions of the key's columns, in the key's order, and whether they are certain."""
    names = {column.name: at for at, column in enumerate(relation.columns)}
    marked = tuple(at for at, column in enumerate(relation.columns) if column.in_identity)
    identity = () if relation.identity == "f" else marked
    if known is None:
        return identity, False
    if relation.identity == "i" and {*marked} != {names.get(name) for name in known.key}:
        # Of a change of the primary key alone nothing is told: the index is what a row is known by.
        known = msgspec.structs.replace(known, key=known.identity_index)
    key = tuple(names[name] for name in known.key if name in names)
    moved = relation.identity == "d" and bool(identity) and {*key} != {*identity}
    if moved or len(key) != len(known.key):
        # The key is gone, or its columns have other names by now: what identified the row
        # then, unless that was all of it.
        return identity, False
    columns = [each.name for each in known.attributes if not each.generated]
    generated = {each.name for each in known.attributes if each.generated}
    sent = [name for name in names if name not in generated]
    certain = (
        (relation.schema, relation.name) == (known.schema, known.name)
        # Columns that were added since stand behind.
        and sent == columns[: len(sent)]
    )
    return key or identity, certain
