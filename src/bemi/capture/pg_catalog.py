"""What the source's catalog holds of a relation and of the types of its columns, just now.

Names come out as the stream has them; what is made of it, `bemi.capture.catalog` decides.
"""

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg.rows import class_row

from bemi.capture.encodings import Encoding
from bemi.connections import explained

FIRST_USER_OID: Final = 16384

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
       and k.ordinality <= i.indnkeyatts) as key,
    (select array_agg(convert_to(a.attname::text, %(encoding)s) order by k.ordinality)
     from pg_catalog.pg_index i,
          unnest(i.indkey::int2[]) with ordinality k (attnum, ordinality)
          join pg_catalog.pg_attribute a on a.attnum = k.attnum
     where i.indrelid = c.oid and i.indisreplident and a.attrelid = c.oid
       and k.ordinality <= i.indnkeyatts) as identity_index,
    (select array_agg(
        row(convert_to(a.attname::text, %(encoding)s), a.attnum::int, a.atttypid::bigint,
            a.attgenerated::text,
            convert_to(format_type(a.atttypid, a.atttypmod), %(encoding)s),
            a.xmin::text::bigint, a.atthasmissing, a.atttypmod)
        order by a.attnum)
     from pg_catalog.pg_attribute a
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as attributes,
    c.relreplident::text as identity,
    c.relfilenode::bigint as filenode,
    c.relnatts::int as numbered,
    (select m.oid::bigint
     from pg_catalog.pg_publication_rel m join pg_catalog.pg_publication p on p.oid = m.prpubid
     where m.prrelid = c.oid and p.pubname = %(publication)s) as membership,
    convert_to(n.nspname::text, %(encoding)s) as schema,
    convert_to(c.relname::text, %(encoding)s) as name,
    convert_to(rn.nspname::text, %(encoding)s) as root_schema,
    convert_to(r.relname::text, %(encoding)s) as root_name
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


class Attribute(msgspec.Struct, frozen=True):
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
    modifier: int


class Known(msgspec.Struct, frozen=True):
    """What the catalog knows of a relation now."""

    key: list[str]
    identity_index: list[str]
    """Columns of the index that REPLICA IDENTITY USING INDEX names."""
    attributes: list[Attribute]
    identity: str
    filenode: int
    numbered: int
    """Columns, with those that were dropped."""
    membership: int | None
    schema: str
    name: str
    root_schema: str | None
    root_name: str | None


class _Row(msgspec.Struct, frozen=True):
    """`Known` as the query has it: names as bytes, and None for what there is nothing of."""

    key: list[bytes] | None
    identity_index: list[bytes] | None
    attributes: list[tuple[bytes, int, int, str, bytes, int, bool, int]] | None
    identity: str
    filenode: int
    numbered: int
    membership: int | None
    schema: bytes
    name: bytes
    root_schema: bytes | None
    root_name: bytes | None

    def known(self, encoding: Encoding) -> Known:
        def text(name: bytes) -> str:
            return name.decode(encoding.text, "backslashreplace")

        return Known(
            key=[text(each) for each in self.key or ()],
            identity_index=[text(each) for each in self.identity_index or ()],
            attributes=[
                Attribute(
                    text(name), number, type_oid, generated, text(kind), stamp, filled, modifier
                )
                for name, number, type_oid, generated, kind, stamp, filled, modifier in (
                    self.attributes or ()
                )
            ],
            identity=self.identity,
            filenode=self.filenode,
            numbered=self.numbered,
            membership=self.membership,
            schema=text(self.schema),
            name=text(self.name),
            root_schema=None if self.root_schema is None else text(self.root_schema),
            root_name=None if self.root_name is None else text(self.root_name),
        )


class Types(msgspec.Struct, frozen=True):
    """What each domain is of, and of what each array whose elements are told apart by commas."""

    domains: dict[int, int]
    elements: dict[int, int]


def look_up(
    conn: psycopg.Connection[Any], oid: int, publication: str, encoding: Encoding
) -> Known | None:
    """The relation now, in one snapshot; None: there is none with this OID."""
    with (
        explained("source"),
        # In binary, whatever bytea_output the role prefers.
        conn.cursor(binary=True, row_factory=class_row(_Row)) as cursor,
    ):
        row = cursor.execute(
            _RELATION, {"oid": oid, "encoding": encoding.client, "publication": publication}
        ).fetchone()
    return None if row is None else row.known(encoding)


def types(conn: psycopg.Connection[Any]) -> Types:
    found = Types({}, {})
    with explained("source"):
        for oid, is_domain, base, element in conn.execute(_TYPES):
            if is_domain:
                found.domains[oid] = base
            else:
                found.elements[oid] = element
    return found


def parts_of(
    conn: psycopg.Connection[Any], relations: Sequence[int]
) -> dict[int, dict[int, dict[str, str]]]:
    """Of tables with columns of types that somebody made: see `Column.parts`, by their numbers."""
    found: dict[int, dict[int, dict[str, str]]] = {}
    with explained("source"):
        for relation, number, part, text in conn.execute(
            _PARTS, {"oids": list(relations), "first": FIRST_USER_OID}
        ):
            found.setdefault(relation, {}).setdefault(number, {})[part] = text
    return found


def sends_stored(conn: psycopg.Connection[Any], publication: str) -> bool:
    """Whether the publication has the values of stored generated columns."""
    with explained("source"):
        row = conn.execute(
            "select to_jsonb(p) ->> 'pubgencols' = 's' from pg_catalog.pg_publication p"
            " where p.pubname = %s",
            [publication],
        ).fetchone()
    return row is not None and bool(row[0])
