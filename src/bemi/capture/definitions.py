"""What the tables that are tracked, and the types of their columns, are made of just now.

Read from the source's catalog at looks, never for a change: first only whether any of it was
altered, which takes a millisecond or so for a hundred tables. All names but those of
`pg_catalog` are spelled with their schemas. That a function which an expression calls was renamed
shows only when something else was altered.
"""

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.capture.encodings import Encoding
from bemi.store.definitions import Definition

_FIRST_USER_OID: Final = 16384

# A partition is told by the table above it. The types are those of its columns, down to those that
# arrays, domains, ranges and composite types are made of.
_OURS: Final[LiteralString] = """
with recursive relations as (
    select distinct case
        when c.relispartition then pg_partition_root(c.oid)::oid else c.oid end as oid
    from pg_class c
    where c.oid = any(%(relations)s::oid[])
),
made_of (oid) as (
    select a.atttypid
    from pg_attribute a
    where a.attrelid in (select oid from relations) and a.attnum > 0 and not a.attisdropped
        and a.atttypid >= %(first)s::oid
    union
    select part.oid
    from made_of m
    join pg_type t on t.oid = m.oid
    cross join lateral (
        select t.typelem as oid union all select t.typbasetype
        union all select unnest(array[r.rngsubtype, r.rngtypid]) from pg_range r
            where t.oid in (r.rngtypid, r.rngmultitypid)
        union all select a.atttypid from pg_attribute a
            where a.attrelid = nullif(t.typrelid, 0) and a.attnum > 0 and not a.attisdropped
    ) part
    where part.oid >= %(first)s::oid
)
"""

# Every row of the catalog is another one once it was altered.
_STAMP: Final[LiteralString] = """
{ours}
select md5(string_agg(stamp, ' ' order by stamp)) from (
    select 'c' || c.oid || ':' || c.xmin as stamp from pg_class c
    where c.oid in (
        select oid from relations union
        select k.confrelid from pg_constraint k where k.conrelid in (select oid from relations))
    union all
    select 'a' || a.attrelid || '.' || a.attnum || ':' || a.xmin from pg_attribute a
    where a.attnum > 0 and a.attrelid in (
        select oid from relations union
        select t.typrelid from pg_type t
        where t.oid in (select oid from made_of) and t.typrelid > 0)
    union all
    select 'a' || a.attrelid || '.' || a.attnum || ':' || a.xmin from pg_constraint k
    join pg_attribute a on a.attrelid = k.confrelid and a.attnum = any(k.confkey)
    where k.conrelid in (select oid from relations)
    union all
    select 'd' || d.oid || ':' || d.xmin from pg_attrdef d
    where d.adrelid in (select oid from relations)
    union all
    select 'k' || k.oid || ':' || k.xmin from pg_constraint k
    where k.conrelid in (select oid from relations) or k.contypid in (select oid from made_of)
    union all
    select 'i' || i.indexrelid || ':' || i.xmin from pg_index i
    where i.indisunique and i.indrelid in (select oid from relations)
    union all
    select 't' || t.oid || ':' || t.xmin from pg_type t where t.oid in (select oid from made_of)
    union all
    select 'e' || e.oid || ':' || e.xmin from pg_enum e
    where e.enumtypid in (select oid from made_of)
    union all
    select 'n' || n.oid || ':' || n.xmin from pg_namespace n where n.oid >= %(first)s::oid
) each
"""

# In the encoding of the server, in which any name can be read.
_TABLES: Final[LiteralString] = """
{ours}
select 'table', c.oid::bigint, convert_to(jsonb_build_object('schema', n.nspname,
    'name', c.relname,
    'definition', jsonb_build_object(
    'kind', c.relkind,
    'columns', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'name', a.attname,
            'number', a.attnum,
            'type', format_type(a.atttypid, a.atttypmod),
            'type_oid', a.atttypid::bigint,
            'element_oid', (select t.typelem::bigint from pg_type t where t.oid = a.atttypid
                and t.typinput = 'array_in'::regproc),
            'not_null', a.attnotnull,
            'default', (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d
                where d.adrelid = a.attrelid and d.adnum = a.attnum),
            'identity', a.attidentity,
            'generated', a.attgenerated,
            'collation', case when a.attcollation <> 0 and a.attcollation <>
                (select t.typcollation from pg_type t where t.oid = a.atttypid)
                then a.attcollation::regcollation::text end,
            'sequence', (
                select jsonb_build_object('schema', sn.nspname, 'name', s.relname,
                    'type', format_type(q.seqtypid, null), 'start', q.seqstart,
                    'increment', q.seqincrement, 'min', q.seqmin, 'max', q.seqmax,
                    'cache', q.seqcache, 'cycle', q.seqcycle)
                from pg_depend d
                join pg_class s on s.oid = d.objid and s.relkind = 'S'
                join pg_namespace sn on sn.oid = s.relnamespace
                join pg_sequence q on q.seqrelid = s.oid
                where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                    and d.refobjid = a.attrelid and d.refobjsubid = a.attnum
                    and d.deptype in ('a', 'i')
                order by s.oid limit 1)
        ) order by a.attnum), '[]')
        from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    'constraints', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'name', k.conname,
            'kind', k.contype,
            'definition', pg_get_constraintdef(k.oid),
            'columns', (select jsonb_agg(a.attname order by n.at)
                from unnest(k.conkey) with ordinality n (number, at)
                join pg_attribute a on a.attrelid = k.conrelid and a.attnum = n.number),
            'references', nullif(k.confrelid, 0)::bigint,
            'referenced', (select jsonb_agg(a.attname order by n.at)
                from unnest(k.confkey) with ordinality n (number, at)
                join pg_attribute a on a.attrelid = k.confrelid and a.attnum = n.number),
            'validated', k.convalidated
        ) order by k.contype, k.conname), '[]')
        from pg_constraint k
        where k.conrelid = c.oid and k.contype in ('p', 'u', 'f', 'c', 'x')
            -- Those that stand for the partitions of a table that is referred to.
            and (k.contype <> 'f' or k.conparentid = 0)),
    'indexes', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'name', x.relname,
            'definition', pg_get_indexdef(i.indexrelid)
        ) order by x.relname), '[]')
        from pg_index i join pg_class x on x.oid = i.indexrelid
        where i.indrelid = c.oid and i.indisunique and i.indisvalid
            and not exists (select from pg_constraint k
                where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')))
    ))::text, %(encoding)s)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid in (select oid from relations)
"""

_TYPES: Final[LiteralString] = """
{ours}
select case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'c' then 'composite'
        when 'r' then 'range' else 'base' end,
    t.oid::bigint, convert_to(jsonb_build_object('schema', n.nspname, 'name', t.typname,
    'definition', jsonb_build_object('extension', (
        select x.extname from pg_depend d join pg_extension x on x.oid = d.refobjid
        where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
            and d.refclassid = 'pg_extension'::regclass limit 1)) || case t.typtype
    when 'e' then jsonb_build_object('labels', (
        select coalesce(jsonb_agg(e.enumlabel order by e.enumsortorder), '[]')
        from pg_enum e where e.enumtypid = t.oid))
    when 'd' then jsonb_build_object(
        'type', format_type(t.typbasetype, t.typtypmod),
        'type_oid', t.typbasetype::bigint,
        'not_null', t.typnotnull,
        'default', pg_get_expr(t.typdefaultbin, 0),
        'collation', case when t.typcollation <> 0 and t.typcollation <>
            (select b.typcollation from pg_type b where b.oid = t.typbasetype)
            then t.typcollation::regcollation::text end,
        'constraints', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'name', k.conname, 'definition', pg_get_constraintdef(k.oid)) order by k.conname),
                '[]')
            from pg_constraint k where k.contypid = t.oid and k.contype = 'c'))
    when 'c' then jsonb_build_object(
        'relation', (select c.oid::bigint from pg_class c
            where c.oid = t.typrelid and c.relkind <> 'c'),
        'attributes', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                'type_oid', a.atttypid::bigint,
                'collation', case when a.attcollation <> 0 and a.attcollation <>
                    (select b.typcollation from pg_type b where b.oid = a.atttypid)
                    then a.attcollation::regcollation::text end
                ) order by a.attnum), '[]')
            from pg_attribute a
            where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
    when 'r' then (
        select jsonb_build_object(
            'subtype', format_type(r.rngsubtype, null),
            'subtype_oid', r.rngsubtype::bigint,
            'collation', nullif(r.rngcollation, 0)::regcollation::text,
            'opclass', (select quote_ident(on_.nspname) || '.' || quote_ident(o.opcname)
                from pg_opclass o join pg_namespace on_ on on_.oid = o.opcnamespace
                where o.oid = r.rngsubopc),
            'canonical', nullif(r.rngcanonical, 0)::regproc::text,
            'subtype_diff', nullif(r.rngsubdiff, 0)::regproc::text,
            'multirange', (select m.typname from pg_type m where m.oid = r.rngmultitypid),
            'multirange_oid', r.rngmultitypid::bigint)
        from pg_range r where r.rngtypid = t.oid)
    else '{{}}' end)::text, %(encoding)s)
from pg_type t join pg_namespace n on n.oid = t.typnamespace
where t.oid in (select oid from made_of) and t.typtype <> 'm'
    and t.typinput <> 'array_in'::regproc
"""


class Defined(msgspec.Struct, frozen=True):
    """All definitions, as they were when the catalog had this stamp."""

    stamp: str | None
    definitions: tuple[Definition, ...]


def read(
    source: psycopg.Connection[Any],
    relations: Sequence[int],
    encoding: Encoding,
    *,
    unless: str | None = None,
) -> Defined | None:
    """The definitions of these tables and of their types; None: the stamp is still `unless`."""
    given = {"relations": list(relations), "first": _FIRST_USER_OID, "encoding": encoding.client}
    with source.transaction():
        # So that all other names are spelled with their schemas.
        source.execute("set local search_path to pg_catalog")
        row = source.execute(_statement(_STAMP), given).fetchone()
        stamp = None if row is None else row[0]
        if unless is not None and stamp == unless:
            return None
        found = [
            _definition(kind, oid, told, encoding)
            for query in (_TABLES, _TYPES)
            for kind, oid, told in source.execute(_statement(query), given, binary=True)
        ]
    return Defined(stamp, tuple(found))


def _definition(kind: str, oid: int, told: bytes, encoding: Encoding) -> Definition:
    found = msgspec.json.decode(told.decode(encoding.text, "replace").encode())
    return Definition(kind, oid, found["schema"], found["name"], found["definition"])


def _statement(query: LiteralString) -> sql.Composed:
    return sql.SQL(query).format(ours=sql.SQL(_OURS))
