"""Proves from where on each published table is captured whole, and until where it was.

A table that joins the publication is captured from somewhere in the middle of the transactions
that are writing to it: what they wrote before is lost, though they commit later. So an interval
begins only after all of these have ended. They are known by their locks, which a transaction
gives back after it has become visible to others; `create index concurrently` waits alike.

That a table was in the publication all along is seen by its row there, whose OID a drop and an
add would change, at a moment when nobody holds a lock that such a change would need.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.capture.catalog import Catalog
from bemi.capture.encodings import Encoding, encoding_of
from bemi.change import Table
from bemi.connections import explained
from bemi.lsn import Lsn
from bemi.store import coverage as intervals
from bemi.store import versions
from bemi.store.coverage import Covered, OpenInterval
from bemi.store.versions import version_of

Connection = psycopg.Connection[Any]

_POLL: Final = 0.05
_LOCK_TIMEOUT: Final = "500ms"

_PUBLISHED: Final = """
select m.prrelid::bigint, m.oid::bigint, coalesce(rn.nspname, n.nspname)::text,
    coalesce(r.relname, c.relname)::text,
    case when c.relispartition then n.nspname || '.' || c.relname end,
    n.nspname::text, c.relname::text
from pg_publication p
join pg_publication_rel m on m.prpubid = p.oid
join pg_class c on c.oid = m.prrelid
join pg_namespace n on n.oid = c.relnamespace
left join pg_class r on c.relispartition and r.oid = pg_partition_root(c.oid)
left join pg_namespace rn on rn.oid = r.relnamespace
where p.pubname = %s
"""

# Of all transactions that may have written to the table and have not ended.
_WRITERS: Final = """
select distinct virtualtransaction from pg_locks
where locktype = 'relation' and relation = %s and granted
    and database = (select oid from pg_database where datname = current_database())
    and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
        'AccessExclusiveLock')
"""

# Whoever takes a table out of a publication, drops or alters one of the two, holds one of these
# until all others can see it.
_ALTERED: Final = """
select l.relation::bigint from pg_locks l
where l.locktype = 'relation' and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
    and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
        'ExclusiveLock', 'AccessExclusiveLock')
union
select 0 from pg_locks l
where l.locktype = 'object' and l.granted and l.classid = 'pg_publication'::regclass
    and l.database = (select oid from pg_database where datname = current_database())
"""


class Kept(msgspec.Struct, frozen=True):
    """What one look at the coverage found and did, by the names of the tables."""

    opened: tuple[str, ...] = ()
    closed: tuple[tuple[str, str], ...] = ()
    """With the cause."""
    waiting: tuple[str, ...] = ()
    """Published, but transactions that began before are still writing to them."""


class Known(msgspec.Struct, frozen=True):
    """A published table with its own name, by which it is locked and read."""

    covered: Covered
    schema: str
    name: str

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"


def keep(
    source: Connection,
    destination: Connection,
    *,
    schema: str,
    publication: str,
    source_id: int,
    epoch: int,
    since: Lsn | None = None,
    patience: float = 1.0,
    verify: bool = True,
    cause: str = "table_added",
    report: Callable[[str], None] = lambda _: None,
) -> Kept:
    """Make the intervals what the publication is: end some, begin some, verify the others.

    `since`: a slot that was made after all tables were published; they are captured from there
    on. Waits up to `patience` seconds in all for transactions that write to new tables; those
    that it takes longer for are left to the next look.
    """
    with explained("source"):
        position = _position(source)
        altered = {row[0] for row in source.execute(_ALTERED)}
        published = _published(source, publication)
        present = _present(source) if published is not None else set()
    with explained("destination"):
        known = intervals.read_open(destination, schema, source_id)
        closed = [
            (interval.covered.partition or _name(interval.covered), why)
            for interval in known.values()
            if (why := _ended(interval, published, present)) is not None
        ]
        for interval in known.values():
            why = _ended(interval, published, present)
            if why is not None:
                intervals.close(destination, schema, interval, why, at=interval.verified_position)
                continue
            now = (published or {})[interval.covered.relation].covered
            if now != interval.covered:
                intervals.rename(destination, schema, interval, now)
        going_on = [each for each in known.values() if _ended(each, published, present) is None]
        if verify and 0 not in altered:
            settled = [each for each in going_on if each.covered.relation not in altered]
            intervals.verify(destination, schema, settled, position)
    covered = {each.covered.relation for each in going_on}
    deadline = time.monotonic() + patience
    catalog = Catalog(source, _encoding(source), publication)
    opened, waiting = [], []
    for table in (published or {}).values():
        if table.covered.relation in covered:
            continue
        found = _begin(source, table, since, deadline, report)
        if found is None:
            waiting.append(table.qualified)
            continue
        start, state = found
        described = catalog.table(table.covered.relation)
        if described is None:
            continue  # it was dropped meanwhile
        with explained("destination"), destination.transaction():
            _remember(destination, schema, source_id, epoch, start, described)
            intervals.open_interval(
                destination,
                schema,
                source_id,
                epoch,
                table.covered,
                position=start,
                state=state,
                opened=cause,
            )
        opened.append(table.qualified)
    return Kept(tuple(opened), tuple(closed), tuple(waiting))


def wait_for_writers(source: Connection, relation: int, deadline: float) -> bool:
    """Wait until the transactions that may have written to the table by now have all ended.

    Whether they have, by the monotonic time `deadline`. Then all that they did is visible.
    """
    pending = _writers(source, relation)
    while pending and time.monotonic() < deadline:
        time.sleep(_POLL)
        pending &= _writers(source, relation)
    return not pending


def _begin(
    source: Connection,
    table: Known,
    since: Lsn | None,
    deadline: float,
    report: Callable[[str], None],
) -> tuple[Lsn, Lsn | None] | None:
    """From where on a table is captured whole, and a position at which it was empty, if it was.

    The writers are waited for twice: after the first time nothing of theirs is lost that
    commits from `position` on; after the second, a look sees all that committed before it.
    """
    relation = table.covered.relation
    with explained("source"):
        if _writers(source, relation):
            report(f"waiting for transactions that write to {table.qualified}")
        position = since
        if position is None:
            if not wait_for_writers(source, relation, deadline):
                return None
            position = _position(source)
        if not wait_for_writers(source, relation, deadline):
            return None
        # All that the look sees committed before the position that is read after it.
        return position, _position(source) if _is_empty(source, table) else None


def _remember(
    destination: Connection, schema: str, source_id: int, epoch: int, position: Lsn, table: Table
) -> None:
    """Keep the table's version: what is altered from here on is seen by its difference."""
    known = versions.read(destination, schema, source_id, table.oid).get(table.oid, [])
    found = msgspec.structs.replace(version_of(table), place=(epoch, int(position), 0))
    if not known or known[-1].place[0] != epoch or known[-1] != found:
        versions.insert(destination, schema, source_id, found)


def _encoding(source: Connection) -> Encoding:
    row = source.execute("show server_encoding").fetchone()
    assert row is not None
    return encoding_of(row[0])


def _is_empty(source: Connection, table: Known) -> bool:
    """Whether it can be seen that the table has no rows.

    Locked before the snapshot, which would not be safe from TRUNCATE and rewrites otherwise.
    """
    name = sql.Identifier(table.schema, table.name)
    try:
        with source.transaction():
            source.execute("set transaction isolation level repeatable read, read only")
            source.execute("select set_config('row_security', 'off', true)")
            source.execute("select set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
            source.execute(sql.SQL("lock table only {} in access share mode").format(name))
            row = source.execute(
                sql.SQL("select exists(select from only {})").format(name)
            ).fetchone()
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.LockNotAvailable,
        psycopg.errors.UndefinedTable,
        psycopg.errors.QueryCanceled,
    ):
        return False
    return row is not None and not row[0]


def _ended(
    interval: OpenInterval, published: dict[int, Known] | None, present: set[int]
) -> str | None:
    """Why the interval does not go on, if so."""
    if published is None:
        return "publication_dropped"
    now = published.get(interval.covered.relation)
    if now is None:
        return "untracked" if interval.covered.relation in present else "table_dropped"
    return None if now.covered.membership == interval.covered.membership else "untracked"


def _published(source: Connection, publication: str) -> dict[int, Known] | None:
    """The tables of the publication; None where there is none."""
    row = source.execute(
        "select exists(select from pg_publication where pubname = %s)", [publication]
    ).fetchone()
    if row is None or not row[0]:
        return None
    return {
        relation: Known(
            Covered(relation, membership, schema, table, partition), own_schema, own_name
        )
        for (
            relation,
            membership,
            schema,
            table,
            partition,
            own_schema,
            own_name,
        ) in source.execute(_PUBLISHED, [publication])
    }


def _present(source: Connection) -> set[int]:
    rows = source.execute("select oid::bigint from pg_class where relkind in ('r', 'p')")
    return {row[0] for row in rows}


def _writers(source: Connection, relation: int) -> set[str]:
    return {row[0] for row in source.execute(_WRITERS, [relation])}


def _position(source: Connection) -> Lsn:
    row: Sequence[Any] | None = source.execute(
        "select pg_current_wal_insert_lsn()::text"
    ).fetchone()
    assert row is not None
    return Lsn.parse(row[0])


def _name(covered: Covered) -> str:
    return f"{covered.schema}.{covered.table}"
