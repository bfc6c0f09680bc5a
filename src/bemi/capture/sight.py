"""What one look at the source's catalog sees of the tables that are published, or were; and what is
remembered from one look to the next."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg

from bemi.capture import publication as publications
from bemi.capture.encodings import Encoding, encoding_of
from bemi.capture.locks import Locks
from bemi.lsn import Lsn
from bemi.store.coverage import Covered, Looked, Naming, OpenInterval
from bemi.store.definitions import Definition

Connection = psycopg.Connection[Any]

# Tables in the publication, by themselves or through a partitioned table above them; partitions,
# since one that is not published may belong to a table that is; and tables known from before.
_TABLES: Final = """
select c.oid::bigint, m.oid::bigint, n.nspname::text, c.relname::text,
    rn.nspname::text, r.relname::text,
    exists (select from pg_index i
            where i.indrelid = c.oid and i.indisvalid and i.indimmediate
                and (i.indisprimary or i.indisreplident)),
    coalesce((select a.amname = 'heap' from pg_am a where a.oid = c.relam), false),
    c.relfilenode::bigint
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_class r on c.relispartition and r.oid = pg_partition_root(c.oid)
left join pg_namespace rn on rn.oid = r.relnamespace
left join lateral (
    select m.oid
    from pg_publication_rel m
    join pg_publication p on p.oid = m.prpubid
    where p.pubname = %(publication)s
        and (m.prrelid = c.oid
            or c.relispartition and m.prrelid in (select pg_partition_ancestors(c.oid)))
    order by m.prrelid <> c.oid, m.oid
    limit 1
) m on true
where c.relkind = 'r' and (m.oid is not null or c.relispartition or c.oid = any(%(known)s::oid[]))
"""

# An update of this row, which need not show in its faults, had its time to lose changes.
_STAMP: Final = (
    "select pubowner::text, xmin::text || ' ' || oid::text from pg_publication where pubname = %s"
)

_HERE: Final = """
select pg_current_wal_insert_lsn()::text, clock_timestamp()
"""


class Known(msgspec.Struct, frozen=True):
    """A table as the source's catalog has it. `schema` and `name` are its own."""

    relation: int
    membership: int | None
    """Its row in the publication, or that of a table above it; None: it is not published."""
    schema: str
    name: str
    naming: Naming
    keyed: bool
    heap: bool
    filenode: int
    """Changes when the table is rewritten."""

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def covered(self) -> Covered:
        naming = self.naming
        return Covered(
            self.relation, self.membership or 0, naming.schema, naming.table, naming.partition
        )


class Seen(msgspec.Struct, frozen=True):
    """The source's catalog at one moment."""

    exists: bool
    stamp: str | None
    faults: tuple[str, ...]
    tables: dict[int, Known]


class Pending(msgspec.Struct):
    """A published table whose interval is still to begin; what is proven of it so far.

    `first` is the look after which all its writers must have ended.
    """

    membership: int
    first: Locks | None
    position: Lsn | None
    glances: int = 0


class Memory(msgspec.Struct):
    """What a watch knows from its earlier looks, beside what is written down."""

    pending: dict[int, Pending] = {}
    verified: dict[int, Lsn] = {}
    """By interval. Written down only when something was captured, so that idle stays idle."""
    looked: Looked | None = None
    rules: int = 0
    """How many versions of the rules were gone through."""
    parts: dict[int, dict[int, dict[str, str]]] = {}
    """What the types of the tables' columns were made of; see `pg_catalog.parts_of`."""
    filenodes: dict[int, int] | None = None
    """By table."""
    definitions: dict[tuple[str, int], Definition] | None = None
    definitions_stamp: str | None = None
    """Of the catalog when it had these."""


def see(source: Connection, name: str, known: Iterable[int]) -> Seen:
    found = publications.read(source, name)
    stamp = source.execute(_STAMP, [name]).fetchone()
    tables = {}
    for oid, membership, schema, table, root_schema, root, *rest in source.execute(
        _TABLES, {"publication": name, "known": list(known)}
    ):
        naming = Naming(schema, table, None)
        if root is not None:
            naming = Naming(root_schema, root, f"{schema}.{table}")
        tables[oid] = Known(oid, membership, schema, table, naming, *rest)
    return Seen(
        exists=found is not None,
        stamp=None if stamp is None else " ".join(stamp),
        faults=() if found is None else found.faults,
        tables=tables,
    )


def is_altered(before: str | None, now: str | None) -> bool:
    """Whether the publication was altered between two looks, other than by giving it away."""
    if before is None or now is None or before == now:
        return False
    owner, _, rest = before.partition(" ")
    owner_now, _, rest_now = now.partition(" ")
    same_publication = rest.split()[1] == rest_now.split()[1]
    return same_publication and owner == owner_now


def ended_by(interval: OpenInterval, seen: Seen, altered: bool) -> str | None:
    """Why the interval does not go on, if so."""
    if not seen.exists:
        return "publication_dropped"
    if seen.faults or altered:
        return "publication_altered"
    now = seen.tables.get(interval.covered.relation)
    if now is None:
        return "table_dropped"
    return None if now.membership == interval.covered.membership else "untracked"


def renamed_tables(seen: Seen, names: Mapping[int, Naming | None]) -> dict[int, Naming | None]:
    """What is called otherwise than at the last look, or new, or gone.

    Of partitions that are not published, those that are below a table that has published ones:
    without their rows, what is known of it is not all.
    """
    roots = {
        (naming.schema, naming.table)
        for naming in (
            *(table.naming for table in seen.tables.values() if table.membership is not None),
            *names.values(),
        )
        if naming is not None and naming.partition is not None
    }
    found: dict[int, Naming | None] = {
        relation: table.naming
        for relation, table in seen.tables.items()
        if names.get(relation) != table.naming
        and (
            relation in names
            or table.membership is not None
            or (
                table.naming.partition is not None
                and (table.naming.schema, table.naming.table) in roots
            )
        )
    }
    for relation, naming in names.items():
        if naming is not None and relation not in seen.tables:
            found[relation] = None
    return found


def here_and_now(source: Connection) -> tuple[Lsn, datetime]:
    row = source.execute(_HERE).fetchone()
    assert row is not None
    return Lsn.parse(row[0]), row[1]


def encoding(source: Connection) -> Encoding:
    row = source.execute("show server_encoding").fetchone()
    assert row is not None
    return encoding_of(row[0])
