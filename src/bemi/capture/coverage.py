"""Proves from where on each published table is captured whole, and until where it was.

A table that joins the publication is captured from somewhere in the middle of the transactions
that are writing to it: what they wrote before is lost, though they commit later. So an interval
begins only after all of these have ended (see `bemi.capture.locks`), as `create index
concurrently` waits for them.

That a table was in the publication all along is seen by its row there, whose OID a drop and an
add would change, at a moment when nobody holds a lock that such a change would need.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import psycopg

from bemi.capture import definitions, locks
from bemi.capture.alterations import (
    part_rules,
    remember_rewrite,
    rewritten_tables,
    tell_respelled,
)
from bemi.capture.catalog import Catalog
from bemi.capture.joining import POLL, Begun, join
from bemi.capture.proof import Proof, prove
from bemi.capture.sight import (
    Known,
    Memory,
    encoding,
    ended_by,
    here_and_now,
    is_altered,
    renamed_tables,
    see,
)
from bemi.change import Table
from bemi.connections import explained
from bemi.errors import PassingError
from bemi.lsn import Lsn
from bemi.store import checkpoint, versions
from bemi.store import coverage as intervals
from bemi.store import definitions as definitions_store
from bemi.store.coverage import Covered, Looked
from bemi.store.versions import version_of

Connection = psycopg.Connection[Any]


class Kept(msgspec.Struct, frozen=True):
    """What one look at the coverage found and did, by the names of the tables."""

    opened: tuple[str, ...] = ()
    closed: tuple[tuple[str, str], ...] = ()
    """With the cause."""
    waiting: tuple[str, ...] = ()
    """Published, but transactions that began before are still writing to them."""
    proof: Proof | None = None
    """Until when all is captured, once the history has come to its position."""


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
        began, clock = here_and_now(source)
        held = locks.look(source)
        seen = see(source, publication, known.keys() | names.keys())
        here, _ = here_and_now(source)
        tracked = [each.relation for each in seen.tables.values() if each.membership is not None]
        proof = prove(clock, held, here, tracked)
        defined = definitions.read(
            source, tracked, encoding(source), unless=memory.definitions_stamp
        )
    altered = looked is not None and is_altered(looked.stamp, seen.stamp)
    ended = {
        interval.interval_id: why
        for interval in known.values()
        if (why := ended_by(interval, seen, altered)) is not None
    }
    going_on = [each for each in known.values() if each.interval_id not in ended]
    tell_respelled(
        source, destination, schema, source_id, publication, going_on, memory, since=looked
    )
    if memory.filenodes is None:
        with explained("destination"):
            memory.filenodes = versions.read_filenodes(destination, schema, source_id)
    if defined is not None and memory.definitions is None:
        with explained("destination"):
            memory.definitions = definitions_store.read_last(destination, schema, source_id, epoch)
    rewritten = rewritten_tables(source, publication, going_on, seen, memory.filenodes)
    renamed = renamed_tables(seen, names)
    settled = [
        each
        for each in going_on
        if not held.publication and each.covered.relation not in held.altering
    ]
    with explained("destination"), destination.transaction():
        part_rules(destination, schema, source_id, epoch, going_on, memory)
        for interval, table in rewritten:
            since_look = max(
                interval.verified_position,
                memory.verified.get(interval.interval_id, interval.verified_position),
            )
            remember_rewrite(destination, schema, source_id, epoch, since_look, table)
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
        if defined is not None:
            definitions_store.write(
                destination,
                schema,
                source_id,
                epoch,
                definitions_store.differing(memory.definitions or {}, defined.definitions),
                position=here,
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
    if defined is not None:
        memory.definitions_stamp = defined.stamp
        memory.definitions = {each.of: each for each in defined.definitions}
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
        catalog = Catalog(source, encoding(source), publication)
        before = {} if published_before is None else published_before

        def begin(table: Known, begun: Begun) -> None:
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
        joining = join(source, joining, starts, memory, patience, begin, report)
    else:
        memory.pending = {}
    return Kept(tuple(opened), closed, tuple(table.qualified for table in joining), proof)


def memberships(source: Connection, publication: str) -> dict[int, int]:
    """The rows in the publication by table, to be known before a slot is made."""
    with explained("source"):
        seen = see(source, publication, ())
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
            time.sleep(POLL)
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
        position, _ = here_and_now(source)
    if not wait_for_writers(source, relation, time.monotonic() + patience):
        return False
    with explained("destination"):
        anew = intervals.begin_anew(
            destination, schema, interval_id, at=position, cause="begun_anew"
        )
    return anew is not None


def _remember(
    destination: Connection, schema: str, source_id: int, epoch: int, position: Lsn, table: Table
) -> None:
    """Keep the table's version: what is altered from here on is seen by its difference."""
    known = versions.read(destination, schema, source_id, table.oid).get(table.oid, [])
    found = msgspec.structs.replace(version_of(table), place=(epoch, int(position), 0))
    if not known or known[-1].place[0] != epoch or known[-1] != found:
        versions.insert(destination, schema, source_id, found)


def _require_server(source: Connection, epoch: checkpoint.Epoch) -> None:
    row = source.execute(
        "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,"
        " (select oid::bigint from pg_database where datname = current_database())"
    ).fetchone()
    if row != (epoch.timeline, epoch.database_oid):
        raise PassingError("the source is not the one that the history is of at present")


def _name(covered: Covered) -> str:
    return f"{covered.schema}.{covered.table}"
