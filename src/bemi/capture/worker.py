"""Runs the pipeline for one source: opens it, keeps it going, ends it.

A session lasts as long as both connections do. What passes by itself is waited for, with
growing pauses; what does not ends the worker with an error that says what to do.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.capture import preflight
from bemi.capture.catalog import Catalog
from bemi.capture.continuity import take_over
from bemi.capture.encoder import Encoder
from bemi.capture.pipeline import Pipeline
from bemi.capture.protocol import postgres_time
from bemi.capture.sink import Sink
from bemi.capture.source import Source
from bemi.capture.stitcher import MARK_PREFIX, Stitcher
from bemi.capture.watch import watch_store, watch_tables
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import PassingError, RefusedError, SetupError, SlotBusyError
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints
from bemi.store.migrate import require_current

log = logging.getLogger("bemi.worker")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_DRAIN: Final = 10.0
"""Seconds that a stopping worker gives the destination to take what was read."""


def run(
    settings: Settings,
    *,
    stop: threading.Event,
    until_caught_up: bool = False,
    accept_gap: bool = False,
    clock: Callable[[], float] = time.time,
) -> None:
    """Capture until `stop` is set, or all that was committed before this call is stored.

    With `accept_gap`, changes that can't be had any more are recorded as a gap and left
    behind. Raises `BemiError` for what waiting will not mend, `GapError` among it.
    """
    Worker(settings, stop=stop, accept_gap=accept_gap, clock=clock).run(until_caught_up)


class Worker:
    """One source's worker. It holds the slot while a session lasts, so there is only one."""

    def __init__(
        self,
        settings: Settings,
        *,
        stop: threading.Event,
        accept_gap: bool,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._accept_gap = accept_gap
        self._clock = clock
        self._target: Lsn | None = None
        self._has_run = False

    def run(self, until_caught_up: bool) -> None:
        pause = _FIRST_PAUSE
        busy_since: float | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if until_caught_up and self._target is None:
                    self._target = self._mark()
                self._session()
                return
            except SlotBusyError as error:
                if self._caught_up_by_another():
                    return
                busy_since = busy_since or began
                if time.monotonic() - busy_since > self._settings.slot_wait:
                    raise SetupError(str(error), fix=error.fix) from error
                self._say(error)
                pause = min(pause, _LONGEST_PAUSE / 5)
            except PassingError as error:
                busy_since = None
                self._say(error)
            except RefusedError as error:
                # An unknown refusal by a server that this worker has already worked with.
                if not self._has_run:
                    raise
                self._say(error)
            if time.monotonic() - began > 2 * _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            self._stop.wait(random.uniform(pause / 2, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _say(self, error: PassingError | RefusedError) -> None:
        log.warning("waiting", extra={"reason": str(error), "fix": error.fix})

    def _session(self) -> None:
        """Open both ends, see that they fit together, and run the pipeline between them."""
        settings = self._settings
        with (
            connect(settings.destination_url, what="destination", autocommit=False) as writer,
            connect(settings.source_url, what="source") as catalog_conn,
        ):
            with explained("destination"):
                require_current(writer, settings.schema)
                same_server = _prepare(writer)
            with explained("source"):
                preflight.require(catalog_conn, settings)
            source = Source(settings.source_url, now=self._clock)
            try:
                checked_text = source.check_settings()
                identity = source.identify()
                with explained("source"):
                    catalog = Catalog(catalog_conn)
                    encoding, next_xid = _server_state(catalog_conn)
                source.start(settings.slot, settings.publication)
                with explained("source"):
                    slot_at = _confirmed(catalog_conn, settings.slot)
                with explained("destination"):
                    held = take_over(
                        writer, settings, identity, slot_at, accept_gap=self._accept_gap
                    )
                self._stream(
                    source,
                    Stitcher(
                        catalog.describe,
                        clock=lambda: postgres_time(self._clock()),
                        encoding=encoding,
                        next_xid=next_xid,
                    ),
                    Sink(
                        writer,
                        settings.schema,
                        Encoder(
                            epoch=held.epoch,
                            source_id=held.source_id,
                            system_identifier=identity.system_identifier,
                            timeline=identity.timeline,
                            database_oid=identity.database_oid,
                            checked_text=checked_text,
                        ),
                        held,
                        same_server=same_server == identity.system_identifier,
                    ),
                )
            finally:
                source.close()

    def _stream(self, source: Source, stitcher: Stitcher, sink: Sink) -> None:
        self._has_run = True
        log.info(
            "capturing",
            extra={"source": self._settings.source, "position": str(sink.stored)},
        )
        drain = 0.0
        try:
            with watch_tables(self._settings), watch_store(self._settings):
                Pipeline(source, stitcher, sink).run(lambda: self._done(sink))
            drain = _DRAIN
        finally:
            sink.close(drain=drain)
        source.acknowledge(sink.stored)

    def _done(self, sink: Sink) -> bool:
        if self._target is not None and sink.stored >= self._target:
            return True
        return self._stop.is_set()

    def _mark(self) -> Lsn:
        """A position that all transactions committed by now end before.

        The mark asks the worker that sees it, this one or another, for a prompt checkpoint.
        """
        with (
            connect(self._settings.source_url, what="source") as conn,
            explained("source"),
            conn.transaction(),
        ):
            conn.execute("set local synchronous_commit to on")
            row = conn.execute(
                "select pg_logical_emit_message(true, %s, '')::text", [MARK_PREFIX]
            ).fetchone()
        assert row is not None
        return Lsn.parse(row[0])

    def _caught_up_by_another(self) -> bool:
        if self._target is None:
            return False
        settings = self._settings
        with (
            connect(settings.destination_url, what="destination") as conn,
            explained("destination"),
        ):
            found = checkpoints.read(conn, settings.schema, settings.source)
        return found is not None and found.position >= self._target


def _prepare(writer: psycopg.Connection[Any]) -> str | None:
    """Make commits durable when they return; the system identifier, where it may be read."""
    row = writer.execute("show synchronous_commit").fetchone()
    if row is not None and row[0] == "off":
        writer.execute("set synchronous_commit to on")
    writer.execute("set statement_timeout to 0")
    writer.execute("set idle_in_transaction_session_timeout to 0")
    writer.commit()
    try:
        row = writer.execute("select system_identifier::text from pg_control_system()").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        row = None
    writer.rollback()
    return None if row is None else str(row[0])


def _server_state(conn: psycopg.Connection[Any]) -> tuple[str, int]:
    """The server's encoding as a Python codec's name, and its next transaction id."""
    row = conn.execute(
        "select current_setting('server_encoding'), "
        "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    ).fetchone()
    assert row is not None
    if row[0] in ("SQL_ASCII", "UTF8"):
        return "utf-8", row[1]
    conn.execute(sql.SQL("set client_encoding to {}").format(sql.Literal(row[0])))
    encoding = conn.info.encoding
    conn.execute("set client_encoding to 'UTF8'")
    return encoding, row[1]


def _confirmed(conn: psycopg.Connection[Any], slot: str) -> Lsn:
    row = conn.execute(
        "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", [slot]
    ).fetchone()
    if row is None or row[0] is None:
        raise SetupError(f"the replication slot {slot} is gone", fix="run `bemi init`")
    return Lsn.parse(row[0])
