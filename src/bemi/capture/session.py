"""Opens both ends for one run of the pipeline, sees that they fit together, and closes them.

The order matters: the slot is held before the checkpoint is claimed, so that of two workers
only the one that receives changes may store them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import psycopg

from bemi.capture import preflight, slot
from bemi.capture.catalog import Catalog
from bemi.capture.completer import Completer
from bemi.capture.continuity import expected, registered, take_over
from bemi.capture.encoder import Encoder
from bemi.capture.filter import Filter
from bemi.capture.masker import Masker
from bemi.capture.protocol import postgres_time
from bemi.capture.sink import Sink
from bemi.capture.source import Source
from bemi.capture.stitcher import Stitcher
from bemi.capture.tables import with_remembered_rules
from bemi.config import Settings
from bemi.connections import connect, explained, make_lasting
from bemi.errors import RestoredError, SetupError, SlotBusyError
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints
from bemi.store import rules as rules_store
from bemi.store import sources, versions
from bemi.store.checkpoint import Checkpoint


class Session(msgspec.Struct, frozen=True):
    """The stages that hold connections, and the one between them, for one epoch."""

    source: Source
    stitcher: Stitcher
    filter: Filter
    masker: Masker
    sink: Sink
    rules: Settings
    """The settings with the tables that `init` was told to track."""


@contextlib.contextmanager
def open_session(
    settings: Settings,
    *,
    accept_gap: bool,
    restored: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Session]:
    """Raises `SlotBusyError` and other `PassingError`s, `SetupError`, `GapError`.

    `restored`: what an earlier session found to be missing in the stream, if it did. Where this
    one does, that is recorded as a gap, not accepted, before the `RestoredError` goes on. When
    it ends, what was not committed in the destination is rolled back.
    """
    with contextlib.ExitStack() as stack:
        writer = connect(settings.destination_url, what="destination", autocommit=False)
        # Not the connection's own context manager, which would wait for a writer that hangs.
        close_writer = stack.enter_context(contextlib.ExitStack())
        close_writer.callback(writer.close)
        catalog_conn = stack.enter_context(connect(settings.source_url, what="source"))
        preflight.require(catalog_conn, settings, destination=writer)
        with explained("source"):
            make_lasting(catalog_conn)
        with explained("destination"):
            destination_system = _prepare(writer)
            registered(writer, settings)  # before the slot is waited for, which may be another's
            stored = sources.read(writer, settings.schema, settings.source)
            writer.commit()
        source = Source(settings.source_url, now=clock)
        stack.callback(source.close)
        encoding = source.check_settings()
        identity = source.identify()
        next_xid = _next_xid(catalog_conn)
        try:
            source.start(settings.slot, settings.publication)
        except SlotBusyError as error:
            raise _name_holder(catalog_conn, settings.slot, error) from error
        slot_at = _confirmed(catalog_conn, settings.slot)
        # Read again, now that the slot is held: until then another worker may have stored
        # what was logged after `identify`.
        identity = msgspec.structs.replace(identity, flushed=_flushed(catalog_conn))
        with explained("destination"):
            held = take_over(
                writer, settings, identity, slot_at, accept_gap=accept_gap, restored=restored
            )
            to_come = expected(writer, settings.schema, held, slot_at)
        with explained("destination"):
            rules_id = rules_store.declare(
                writer,
                settings.schema,
                held.source_id,
                settings.rules,
                settings.hash_key,
                epoch=held.epoch,
                position=held.position,
            )
            rules_of = rules_store.read(writer, settings.schema, held.source_id)
            known = versions.read(writer, settings.schema, held.source_id)
            writer.commit()
        catalog = Catalog(
            catalog_conn,
            encoding,
            settings.publication,
            versions.placements(known, held.epoch),
            versions.last_keys(known, held.epoch),
        )
        stitcher = Stitcher(
            catalog.describe,
            clock=lambda: postgres_time(clock()),
            encoding=encoding.messages,
            next_xid=next_xid,
        )
        encoder = Encoder(
            epoch=held.epoch,
            source_id=held.source_id,
            system_identifier=identity.system_identifier,
            timeline=identity.timeline,
            database_oid=identity.database_oid,
            encoding=encoding.text,
            rules_id=rules_id,
        )
        completer = Completer(
            settings.schema,
            held.source_id,
            held.epoch,
            versions=known,
            rules_of=rules_of,
            rules_id=rules_id,
            encoding=encoding.text,
        )
        sink = Sink(
            writer,
            settings.schema,
            encoder,
            completer,
            held,
            versions={relation: stored[-1] for relation, stored in known.items()},
            same_server=destination_system == identity.system_identifier,
            expected=to_come,
        )
        close_writer.pop_all()  # from here on the sink's own
        stack.callback(sink.close)
        remembered = with_remembered_rules(settings, stored.setup if stored else None)
        try:
            yield Session(
                source,
                stitcher,
                Filter(settings.rules),
                Masker(settings.rules, settings.hash_key),
                sink,
                remembered,
            )
        except RestoredError as error:
            _record(settings, held, slot_at, error)
            raise


def _prepare(writer: psycopg.Connection[Any]) -> str | None:
    """Make commits durable when they return; the system identifier, where it may be read."""
    row = writer.execute("show synchronous_commit").fetchone()
    if row is not None and row[0] == "off":
        writer.execute("set synchronous_commit to on")
    writer.commit()
    make_lasting(writer)
    try:
        row = writer.execute("select system_identifier::text from pg_control_system()").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        row = None
    writer.rollback()
    return None if row is None else str(row[0])


def _record(settings: Settings, held: Checkpoint, slot_at: Lsn, error: RestoredError) -> None:
    with (
        connect(settings.destination_url, what="destination") as conn,
        explained("destination"),
    ):
        checkpoints.record_gap(
            conn,
            settings.schema,
            held,
            to=slot_at,
            cause="restored",
            detail=str(error),
            accepted=False,
        )


def _next_xid(conn: psycopg.Connection[Any]) -> int:
    with explained("source"):
        row = conn.execute(
            "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _confirmed(conn: psycopg.Connection[Any], name: str) -> Lsn:
    found = slot.read(conn, name)
    if found is None or found.confirmed is None:
        raise SetupError(
            f'the replication slot "{name}" is gone',
            fix="`bemi recover` makes a new one, and finds out what changed meanwhile",
        )
    return found.confirmed


def _flushed(conn: psycopg.Connection[Any]) -> Lsn:
    with explained("source"):
        row = conn.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return Lsn.parse(row[0])


def _name_holder(conn: psycopg.Connection[Any], name: str, error: SlotBusyError) -> SlotBusyError:
    found = slot.read(conn, name)
    if found is None or found.active_pid is None:
        return error  # gone meanwhile
    return SlotBusyError(
        str(slot.held(found)), fix="stop that worker, or leave this one waiting in its place"
    )
