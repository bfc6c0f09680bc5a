"""Proves from where on each published table is captured whole, and until where it was.

A table that joins the publication is captured from somewhere in the middle of the transactions
that are writing to it: what they wrote before is lost, though they commit later. So an interval
begins only after all of these have ended (see `bemi.capture.locks`), as `create index
concurrently` waits for them.

That a table was in the publication all along is seen by its row there, whose OID a drop and an
add would change, at a moment when nobody holds a lock that such a change would need.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from bemi.capture import locks
from bemi.capture import publication as publications
from bemi.capture.catalog import Catalog, parts_of
from bemi.capture.encodings import Encoding, encoding_of
from bemi.capture.locks import Locks
from bemi.change import Table
from bemi.connections import explained
from bemi.errors import PassingError
from bemi.lsn import Lsn
from bemi.store import checkpoint, gaps, versions
from bemi.store import coverage as intervals
from bemi.store.coverage import Covered, Looked, Naming, OpenInterval
from bemi.store.versions import StoredVersion, version_of

Connection = psycopg.Connection[Any]

_POLL: Final = 0.05
_LOCK_TIMEOUT: Final = "500ms"
_GLANCE_TIMEOUT: Final = "5s"
"""For finding that a table has no row, among all that it had: it can do without."""

_GLANCES: Final = 5
"""Looks at a table that others keep locked, before its state is left unknown."""

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


class Kept(msgspec.Struct, frozen=True):
    """What one look at the coverage found and did, by the names of the tables."""

    opened: tuple[str, ...] = ()
    closed: tuple[tuple[str, str], ...] = ()
    """With the cause."""
    waiting: tuple[str, ...] = ()
    """Published, but transactions that began before are still writing to them."""


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


class _Pending(msgspec.Struct):
    """A published table whose interval is still to begin; what is proven of it so far.

    `first` is the look after which all its writers must have ended.
    """

    membership: int
    first: Locks | None
    position: Lsn | None
    glances: int = 0


class Memory(msgspec.Struct):
    """What a watch knows from its earlier looks, beside what is written down."""

    pending: dict[int, _Pending] = {}
    verified: dict[int, Lsn] = {}
    """By interval. Written down only when something was captured, so that idle stays idle."""
    looked: Looked | None = None
    rules: int = 0
    """How many versions of the rules were gone through."""
    parts: dict[int, dict[int, dict[str, str]]] = {}
    """What the types of the tables' columns were made of; see `bemi.capture.catalog.parts_of`."""
    filenodes: dict[int, int] | None = None
    """By table."""


class _Seen(msgspec.Struct, frozen=True):
    """The source's catalog at one moment."""

    exists: bool
    stamp: str | None
    faults: tuple[str, ...]
    tables: dict[int, Known]


class _Begun(msgspec.Struct, frozen=True):
    """From where on a table is captured whole, and where it was seen without rows, if it was."""

    position: Lsn
    state: Lsn | None
    at: datetime


def keep(
    source: Connection,
    destination: Connection,
    *,
    schema: str,
    publication: str,
    source_id: int,
    epoch: int,
    since: Lsn | None = None,
    published_before: Mapping[int, int] | None = None,
    patience: float = 1.0,
    verify: bool = True,
    cause: str = "table_added",
    memory: Memory | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Kept:
    """Make the intervals what the publication is: end some, begin some, verify the others.

    `since`: a slot that was made after the tables in `published_before`, with their rows in the
    publication; these are captured from there on. Waits up to `patience` seconds in all for
    transactions that write to new tables; those that it takes longer for are left to the next
    look, which goes on with the same `memory`. Raises `PassingError` when the source is not the
    one of the epoch.
    """
    memory = Memory() if memory is None else memory
    with explained("destination"):
        known = intervals.read_open(destination, schema, source_id)
        names = intervals.read_names(destination, schema, source_id, epoch)
        looked = memory.looked or intervals.read_looked(destination, schema, source_id)
        if looked is not None and looked.epoch != epoch:
            looked = Looked(epoch, Lsn(0), looked.stamp)
        expected = checkpoint.read_epoch(destination, schema, epoch)
    with explained("source"):
        _require_server(source, expected)
        began, _ = _here(source)
        held = locks.look(source)
        seen = _see(source, publication, known.keys() | names.keys())
        here, _ = _here(source)
    altered = looked is not None and _is_altered(looked.stamp, seen.stamp)
    ended = {
        interval.interval_id: why
        for interval in known.values()
        if (why := _ended(interval, seen, altered)) is not None
    }
    going_on = [each for each in known.values() if each.interval_id not in ended]
    _tell_respelled(
        source, destination, schema, source_id, publication, going_on, memory, since=looked
    )
    if memory.filenodes is None:
        with explained("destination"):
            memory.filenodes = versions.read_filenodes(destination, schema, source_id)
    rewritten = _rewritten(source, publication, going_on, seen, memory.filenodes)
    renamed = _renamed(seen, names)
    settled = [
        each
        for each in going_on
        if not held.publication and each.covered.relation not in held.altering
    ]
    with explained("destination"), destination.transaction():
        _part_rules(destination, schema, source_id, epoch, going_on, memory)
        for interval, table in rewritten:
            since_look = max(
                interval.verified_position,
                memory.verified.get(interval.interval_id, interval.verified_position),
            )
            _remember_rewrite(destination, schema, source_id, epoch, since_look, table)
        for interval in known.values():
            if interval.interval_id in ended:
                at = max(
                    interval.verified_position,
                    memory.verified.get(interval.interval_id, interval.verified_position),
                )
                why = ended[interval.interval_id]
                intervals.close(destination, schema, interval, why, at=at)
                continue
            now = seen.tables[interval.covered.relation].covered
            if now != interval.covered:
                intervals.rename(destination, schema, interval, now)
        if renamed:
            intervals.write_names(
                destination,
                schema,
                source_id,
                epoch,
                renamed,
                position=since if since is not None and not names else here,
                after=None if looked is None or not looked.position else looked.position,
            )
        if verify:
            intervals.verify(destination, schema, settled, began)
            intervals.part_keys(destination, schema, source_id)
        now_looked = Looked(epoch, began, seen.stamp)
        if verify or renamed or ended or looked is None or looked.stamp != seen.stamp:
            intervals.write_looked(destination, schema, source_id, now_looked)
    memory.verified = {each.interval_id: began for each in settled} | {
        each.interval_id: position
        for each in going_on
        if each not in settled and (position := memory.verified.get(each.interval_id)) is not None
    }
    memory.looked = now_looked
    memory.filenodes = {table.relation: table.filenode for table in seen.tables.values()}
    closed = tuple(
        (each.covered.partition or _name(each.covered), ended[each.interval_id])
        for each in known.values()
        if each.interval_id in ended
    )
    covered = {each.covered.relation for each in going_on}
    joining = [
        table
        for table in seen.tables.values()
        if table.membership is not None and table.relation not in covered and not seen.faults
    ]
    opened: list[str] = []
    if joining:
        catalog = Catalog(source, _encoding(source), publication)
        before = {} if published_before is None else published_before

        def begin(table: Known, begun: _Begun) -> None:
            described = catalog.table(table.relation)
            if described is None:
                return  # it was dropped meanwhile
            with explained("destination"), destination.transaction():
                _remember(destination, schema, source_id, epoch, begun.position, described)
                intervals.open_interval(
                    destination,
                    schema,
                    source_id,
                    epoch,
                    table.covered,
                    position=begun.position,
                    state=begun.state,
                    opened=cause,
                    opened_at=begun.at,
                )
            opened.append(table.qualified)

        starts = {
            table.relation: since
            for table in joining
            if since is not None
            and (published_before is None or before.get(table.relation) == table.membership)
        }
        joining = _join(source, joining, starts, memory, patience, begin, report)
    else:
        memory.pending = {}
    return Kept(tuple(opened), closed, tuple(table.qualified for table in joining))


def memberships(source: Connection, publication: str) -> dict[int, int]:
    """The rows in the publication by table, to be known before a slot is made."""
    with explained("source"):
        seen = _see(source, publication, ())
    return {
        table.relation: table.membership
        for table in seen.tables.values()
        if table.membership is not None
    }


def wait_for_writers(source: Connection, relation: int, deadline: float) -> bool:
    """Wait until the transactions that may have written to the table by now have all ended.

    Whether they have, by the monotonic time `deadline`. Then all that they did is visible.
    """
    with explained("source"):
        first = now = locks.look(source)
        while writing := locks.still_writing(first, now, relation):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
            now = locks.look(source)
    return not writing


def begin_anew(
    source: Connection,
    destination: Connection,
    *,
    schema: str,
    interval_id: int,
    relation: int,
    patience: float = 30.0,
) -> bool:
    """End an open interval here and begin the next one, with its state to be found anew.

    For a baseline that is to tell again what a table holds, where rules left changes out, or
    some were found missing. All that committed before is visible to the looks that follow.
    Whether it was done: not when writers took longer than `patience` seconds.
    """
    with explained("source"):
        position, _ = _here(source)
    if not wait_for_writers(source, relation, time.monotonic() + patience):
        return False
    with explained("destination"):
        anew = intervals.begin_anew(
            destination, schema, interval_id, at=position, cause="begun_anew"
        )
    return anew is not None


def _part_rules(
    destination: Connection,
    schema: str,
    source_id: int,
    epoch: int,
    going_on: Sequence[OpenInterval],
    memory: Memory,
) -> None:
    """End intervals where the rules began to store the keys of their rows otherwise.

    Nothing is missing, but a row is called by another key from there on. The interval goes on as
    the next one, whose state is not known.
    """
    rules = intervals.read_rules(destination, schema, source_id, epoch)
    if len(rules) <= max(memory.rules, 1):
        return
    memory.rules = len(rules)
    tables = versions.read(destination, schema, source_id)
    for interval in going_on:
        table = tables.get(interval.covered.relation)
        if not table:
            continue
        # What was in force when it began, or else the first that there was.
        before = [each for each in rules if each.position <= interval.from_position] or rules[:1]
        first = _key_as_stored(before[-1], table[-1])
        for version in rules:
            if (
                version.position > interval.from_position
                and _key_as_stored(version, table[-1]) != first
            ):
                intervals.begin_anew(
                    destination,
                    schema,
                    interval.interval_id,
                    at=version.position,
                    cause="key_changed",
                )
                break


def _tell_respelled(
    source: Connection,
    destination: Connection,
    schema: str,
    source_id: int,
    publication: str,
    going_on: Sequence[OpenInterval],
    memory: Memory,
    *,
    since: Looked | None,
) -> None:
    """Tell of which columns older values are spelled otherwise since the last look.

    A label of an enum was renamed, or a composite type got other attributes: no row was written,
    and the stream says nothing of it. With such a key, rows are called otherwise from there on.
    """
    found = parts_of(source, [each.covered.relation for each in going_on])
    altered = [
        each
        for each in going_on
        if found.get(each.covered.relation) != memory.parts.get(each.covered.relation)
    ]
    catalog = Catalog(source, _encoding(source), publication) if altered else None
    for interval in altered:
        assert catalog is not None
        relation = interval.covered.relation
        with explained("destination"):
            known = versions.read(destination, schema, source_id, relation).get(relation, [])
        table = catalog.table(relation)
        if table is None or not known or known[-1].place[0] != interval.epoch:
            continue  # what comes next is described anew
        version = version_of(table)
        if _parts(version) == _parts(known[-1]):
            continue
        looked = max(known[-1].read_position, 0 if since is None else int(since.position))
        # From the last look on, rows may have been called by either key.
        by_key = not {*version.primary_key}.isdisjoint(versions.rewritten(known[-1], version))
        place = (interval.epoch, looked if by_key else version.read_position, 0)
        version = msgspec.structs.replace(version, place=place)
        with explained("destination"), destination.transaction(), destination.cursor() as cursor:
            versions.insert(cursor, schema, source_id, version)
            gaps.record_rewrite(cursor, schema, source_id, known, version, since=looked)
    memory.parts = found


def _parts(version: StoredVersion) -> list[object]:
    return [(column.number, column.parts) for column in version.columns]


def _key_as_stored(version: intervals.RulesVersion, table: StoredVersion) -> object:
    """What the rules make of the columns of a table's key, or of all where it has none."""
    columns = [column.name for column in table.columns]
    key = [columns.index(name) for name in table.primary_key if name in columns]
    rules = version.rules.for_table(table.schema, table.table, columns)
    if (rules.exclude | rules.mask) & set(key):
        key = []
    key = key or list(range(len(columns)))
    return [rules.treatment(at) for at in key], version.digest if rules.hash & set(key) else ""


def _rewritten(
    source: Connection,
    publication: str,
    going_on: Sequence[OpenInterval],
    seen: _Seen,
    filenodes: Mapping[int, int],
) -> list[tuple[OpenInterval, Table]]:
    """Tables that were rewritten since the last look, as the catalog has them now."""
    moved = [
        each
        for each in going_on
        if filenodes.get(each.covered.relation) != seen.tables[each.covered.relation].filenode
    ]
    if not moved:
        return []
    with explained("source"):
        catalog = Catalog(source, _encoding(source), publication)
    return [
        (each, table)
        for each in moved
        if (table := catalog.table(each.covered.relation)) is not None
    ]


def _remember_rewrite(
    destination: Connection, schema: str, source_id: int, epoch: int, position: Lsn, table: Table
) -> None:
    """Say which older values of a table may be others by now, though no change has come since.

    `position` is of the look before. Where its columns are others too, the stream tells it with
    the first change behind: only there it is known from where on they are.
    """
    known = versions.read(destination, schema, source_id, table.oid).get(table.oid, [])
    found = version_of(table)
    if not known or known[-1].place[0] != epoch or known[-1].filenode == found.filenode:
        return
    if msgspec.structs.replace(known[-1], filenode=found.filenode).alike(found):
        behind = max(int(position), known[-1].read_position, known[-1].place[1] + 1)
        place = (epoch, behind, 0)
        found = msgspec.structs.replace(found, place=place)
        with destination.cursor() as cursor:
            versions.insert(cursor, schema, source_id, found)
            gaps.record_rewrite(cursor, schema, source_id, known, found)


# --- how an interval begins ------------------------------------------------------------------


def _join(
    source: Connection,
    joining: list[Known],
    starts: Mapping[int, Lsn],
    memory: Memory,
    patience: float,
    begin: Callable[[Known, _Begun], None],
    report: Callable[[str], None],
) -> list[Known]:
    """Begin the intervals of published tables, as their writers end; those still to begin."""
    deadline = time.monotonic() + patience
    memory.pending = {
        table.relation: found
        for table in joining
        if (found := memory.pending.get(table.relation)) is not None
        and found.membership == table.membership
    }
    told: set[int] = set()
    while True:
        with explained("source"):
            now = locks.look(source)
            here, at = _here(source)
        for table in joining:
            pending = memory.pending.get(table.relation)
            if pending is None:
                pending = memory.pending[table.relation] = _Pending(
                    table.membership or 0, now, starts.get(table.relation)
                )
                if pending.position is not None:
                    pending.first = None
            with explained("source"):
                begun = _advance(source, table, pending, now, here, at)
            if begun is not None:
                begin(table, begun)
                del memory.pending[table.relation]
            elif table.relation not in told:
                told.add(table.relation)
                report(f"waiting for transactions that write to {table.qualified}")
        joining = [table for table in joining if table.relation in memory.pending]
        if not joining or time.monotonic() > deadline:
            return joining
        time.sleep(_POLL)


def _advance(
    source: Connection, table: Known, pending: _Pending, now: Locks, here: Lsn, at: datetime
) -> _Begun | None:
    """Take one table as far as it goes: `here` was read after the look `now` at the locks.

    Once the writers that were there when it was found published have ended, none of what commits
    from `here` on is lost. Whether it has rows is asked then. That it has none is known for sure
    where it never had any; or else when all that committed before is visible, which it is when
    the writers of then have ended as well.
    """
    if pending.position is None:
        assert pending.first is not None
        if locks.still_writing(pending.first, now, table.relation):
            return None
        pending.position, pending.first = here, None
    if pending.first is not None and locks.still_writing(pending.first, now, table.relation):
        return None
    glance = _glance(source, table)
    if glance == "locked":
        pending.glances += 1
        return None if pending.glances < _GLANCES else _Begun(pending.position, None, at)
    if glance == "unseen":
        return _Begun(pending.position, None, at)
    if isinstance(glance, _Bare):
        if not glance.ever and not table.keyed:
            # Rows that went since may be in the history as gone, but never as there.
            return _Begun(pending.position, None, glance.at)
        if glance.ever or pending.first is not None:
            return _Begun(pending.position, glance.position, glance.at)
        pending.first = locks.look(source)
        return None
    return _Begun(pending.position, None, glance)


class _Bare(msgspec.Struct, frozen=True):
    """A table without rows, at a position; `ever`: it has not had one since it was truncated."""

    position: Lsn
    at: datetime
    ever: bool


_Glance: TypeAlias = _Bare | datetime | Literal["locked", "unseen"]
"""A table without rows; one with rows, and when; or why it can't be told."""


def _glance(source: Connection, table: Known) -> _Glance:
    """Whether the table has rows.

    It is locked before the first statement takes its snapshot, which would not be safe from
    TRUNCATE otherwise. While it is locked no page of it can go, so that one that has none now
    had none at the position that was read before. What a snapshot shows committed before the
    position that is read after it.
    """
    name = sql.Identifier(table.schema, table.name)
    try:
        with source.transaction():
            source.execute("set transaction isolation level repeatable read, read only")
            source.execute("set local row_security to off")
            source.execute(sql.SQL("set local lock_timeout to {}").format(_LOCK_TIMEOUT))
            source.execute(sql.SQL("set local statement_timeout to {}").format(_GLANCE_TIMEOUT))
            source.execute(sql.SQL("lock table only {} in access share mode").format(name))
            before, _ = _here(source)
            # Without parameters, which a `%` in the name would be taken for.
            row = source.execute(
                sql.SQL(
                    "select to_regclass({name})::oid::bigint, "
                    "pg_relation_size({oid}::oid::regclass) = 0, exists (select from only {table})"
                ).format(
                    name=sql.Literal(name.as_string(source)),
                    oid=sql.Literal(table.relation),
                    table=name,
                )
            ).fetchone()
            after, at = _here(source)
    except (
        psycopg.errors.LockNotAvailable,
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidSchemaName,
    ):
        return "locked"
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled):
        return "unseen"
    assert row is not None
    oid, without_pages, has_rows = row
    if oid != table.relation:
        return "locked"  # it has another name by now
    if has_rows:
        return at
    ever = table.heap and without_pages
    return _Bare(before if ever else after, at, ever)


def _remember(
    destination: Connection, schema: str, source_id: int, epoch: int, position: Lsn, table: Table
) -> None:
    """Keep the table's version: what is altered from here on is seen by its difference."""
    known = versions.read(destination, schema, source_id, table.oid).get(table.oid, [])
    found = msgspec.structs.replace(version_of(table), place=(epoch, int(position), 0))
    if not known or known[-1].place[0] != epoch or known[-1] != found:
        versions.insert(destination, schema, source_id, found)


# --- what a look sees ------------------------------------------------------------------------


def _see(source: Connection, name: str, known: Iterable[int]) -> _Seen:
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
    return _Seen(
        exists=found is not None,
        stamp=None if stamp is None else " ".join(stamp),
        faults=() if found is None else found.faults,
        tables=tables,
    )


def _is_altered(before: str | None, now: str | None) -> bool:
    """Whether the publication was altered between two looks, other than by giving it away."""
    if before is None or now is None or before == now:
        return False
    owner, _, rest = before.partition(" ")
    owner_now, _, rest_now = now.partition(" ")
    same_publication = rest.split()[1] == rest_now.split()[1]
    return same_publication and owner == owner_now


def _ended(interval: OpenInterval, seen: _Seen, altered: bool) -> str | None:
    """Why the interval does not go on, if so."""
    if not seen.exists:
        return "publication_dropped"
    if seen.faults or altered:
        return "publication_altered"
    now = seen.tables.get(interval.covered.relation)
    if now is None:
        return "table_dropped"
    return None if now.membership == interval.covered.membership else "untracked"


def _renamed(seen: _Seen, names: Mapping[int, Naming | None]) -> dict[int, Naming | None]:
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


def _require_server(source: Connection, epoch: checkpoint.Epoch) -> None:
    row = source.execute(
        "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,"
        " (select oid::bigint from pg_database where datname = current_database())"
    ).fetchone()
    if row != (epoch.timeline, epoch.database_oid):
        raise PassingError("the source is not the one that the history is of at present")


def _here(source: Connection) -> tuple[Lsn, datetime]:
    row = source.execute(_HERE).fetchone()
    assert row is not None
    return Lsn.parse(row[0]), row[1]


def _encoding(source: Connection) -> Encoding:
    row = source.execute("show server_encoding").fetchone()
    assert row is not None
    return encoding_of(row[0])


def _name(covered: Covered) -> str:
    return f"{covered.schema}.{covered.table}"
