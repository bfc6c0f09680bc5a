"""Describes relations from the source's catalog: what the stream does not say.

The stream has neither the primary key (under REPLICA IDENTITY FULL every column is marked)
nor what a domain or an array is made of, nor the partitioned table above a partition.
The catalog is read now, while the stream is the past.
"""

from typing import Any

import msgspec
import psycopg

from bemi.capture.messages import Relation
from bemi.change import Column, Table
from bemi.connections import explained

_FIRST_USER_OID = 16384

_TYPES = """
select t.oid::bigint, t.typtype = 'd', t.typbasetype::bigint, t.typelem::bigint
from pg_catalog.pg_type t
where t.typtype = 'd'
   or (t.typinput = 'pg_catalog.array_in'::regproc
       and (select e.typdelim from pg_catalog.pg_type e where e.oid = t.typelem) = ',')
"""

_RELATION = """
select
    (select array_agg(a.attname::text order by k.ordinality)
     from pg_catalog.pg_index i,
          unnest(i.indkey::int2[]) with ordinality k (attnum, ordinality)
          join pg_catalog.pg_attribute a on a.attnum = k.attnum
     where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid
       and k.ordinality <= i.indnkeyatts),
    rn.nspname::text,
    r.relname::text
from pg_catalog.pg_class c
left join pg_catalog.pg_class r
    on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
where c.oid = %s
"""


class Catalog:
    """Answers for one source through a connection of its own."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._seen: set[int] = set()
        self._load_types()

    def describe(self, relation: Relation) -> Table:
        """The table of a RELATION message. A table that is gone is described by it alone."""
        types = {column.type_oid for column in relation.columns}
        with explained("source"):
            if any(oid >= _FIRST_USER_OID and oid not in self._seen for oid in types):
                self._load_types()
                self._seen |= types
            row = self._conn.execute(_RELATION, [relation.oid]).fetchone()
        key_names, root_schema, root_name = row or (None, None, None)
        names = {column.name: at for at, column in enumerate(relation.columns)}
        key = tuple(names[name] for name in key_names or () if name in names)
        if len(key) != len(key_names or ()) or not key:
            # The key is gone, or its columns have other names by now: what identified the
            # row then, unless that was all of it.
            key = tuple(
                at
                for at, column in enumerate(relation.columns)
                if column.in_identity and relation.identity != "f"
            )
        columns = tuple(
            msgspec.structs.replace(column, type_oid=self._base(column.type_oid))
            for column in relation.columns
        )
        return Table(
            oid=relation.oid,
            schema=root_schema or relation.schema,
            name=root_name or relation.name,
            columns=columns,
            key=key,
            array_elements=self._elements_of(columns),
        )

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
