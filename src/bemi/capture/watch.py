"""What a worker does beside the stream, in its own rhythm: notice tables made after `init`,
and keep the store's partitions and statistics ahead of the rows.
"""

import contextvars
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql

from bemi.capture import coverage
from bemi.capture.proof import Proofs
from bemi.capture.sight import Memory
from bemi.capture.tables import add_new_tables
from bemi.config import Settings
from bemi.connections import Role, connect, explained, make_lasting
from bemi.errors import BemiError
from bemi.store import checkpoint as checkpoints
from bemi.store import hourly

log = logging.getLogger("bemi.watch")

_TABLES_INTERVAL: Final = 10.0
"""Seconds between looks at the source's catalog; a look takes a few milliseconds."""

_SOON: Final = 1.0
"""Seconds to the next look while a table waits for the transactions that write to it."""

_PATIENCE: Final = 0.2
"""Seconds of one look that may be spent waiting for them."""

_FIRST_LOOK: Final = 5.0
"""Seconds that capturing may be held up by the first look; mostly it takes a few milliseconds."""

_UPKEEP_INTERVAL: Final = 60.0
"""Seconds between upkeeps of the store; mostly there is nothing to do."""


Look: TypeAlias = Callable[[psycopg.Connection[Any]], bool | None]
"""One look at what is watched; whether the next one shall come soon."""


class Watch:
    """Calls `look` with a connection of its own, again and again while it is entered.

    Failures are told and end nothing: the next look tries again. Entering waits up to `wait`
    seconds for the first look.
    """

    def __init__(
        self, url: str, what: Role, look: Look, *, interval: float, wait: float = 0.0
    ) -> None:
        self._url = url
        self._what: Role = what
        self._look = look
        self._interval = interval
        self._wait = wait
        self._stop = threading.Event()
        self._looked = threading.Event()
        # The log says for which source, and that stands in the context of who starts it.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=[self._run], name=f"bemi-watch-{what}", daemon=True
        )

    def __enter__(self) -> "Watch":
        self._thread.start()
        self._looked.wait(self._wait)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        # A look that hangs in the network ends with the process; it holds nothing.
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._url, what=self._what) as conn, explained(self._what):
                    make_lasting(conn)
                    while not self._stop.is_set():
                        soon = self._look(conn)
                        self._looked.set()
                        self._stop.wait(min(_SOON, self._interval) if soon else self._interval)
            except BemiError as error:
                log.warning("can't look after the %s", self._what, extra={"reason": str(error)})
                self._looked.set()
                self._stop.wait(self._interval)


def watch_tables(settings: Settings, proofs: Proofs) -> Watch:
    """Adds new tables to the publication, or says once why each is not tracked; tells rules that
    match nothing; keeps the coverage of the tables that are tracked; and proves, into `proofs`,
    until when all is captured.

    The first look is waited for, so that what was altered while nobody captured is seen before
    the history goes on.
    """
    told: set[str] = set()
    unmatched: set[str] = set()
    memory = Memory()
    captured: list[datetime | None] = []

    def look(conn: psycopg.Connection[Any]) -> bool:
        _add(conn, settings, told, unmatched)
        return _cover(conn, settings, memory, captured, proofs)

    return Watch(settings.source_url, "source", look, interval=_TABLES_INTERVAL, wait=_FIRST_LOOK)


def _add(
    conn: psycopg.Connection[Any], settings: Settings, told: set[str], unmatched: set[str]
) -> None:
    found = add_new_tables(conn, settings)
    for state in found.added:
        log.info("table added", extra={"table": state.qualified})
    for state in (*found.untracked, *found.failing):
        key = f"{state.qualified}: {state.reason}"
        if key in told:
            continue
        told.add(key)
        message = "table without identity" if state.published else "table not tracked"
        log.warning(
            message,
            extra={"table": state.qualified, "reason": state.reason, "fix": state.fix},
        )
    for reason in found.unmatched:
        if reason not in unmatched:
            log.warning("rule matches nothing", extra={"reason": reason})
    unmatched.clear()  # one that matched meanwhile is told again
    unmatched.update(found.unmatched)


def _cover(
    conn: psycopg.Connection[Any],
    settings: Settings,
    memory: Memory,
    captured: list[datetime | None],
    proofs: Proofs,
) -> bool:
    """Keep the coverage; that it holds is noted only after changes, so that idle stays idle.

    Whether some table's begins as soon as transactions have ended.
    """
    with (
        connect(settings.destination_url, what="destination") as destination,
        explained("destination"),
    ):
        held = checkpoints.read(destination, settings.schema, settings.source)
        if held is None:
            return False
        kept = coverage.keep(
            conn,
            destination,
            schema=settings.schema,
            publication=settings.publication,
            source_id=held.source_id,
            epoch=held.epoch,
            patience=_PATIENCE,
            verify=captured != [held.committed_at],
            memory=memory,
        )
    captured[:] = [held.committed_at]
    if kept.proof is not None:
        proofs.add(kept.proof)
    for table in kept.opened:
        log.info("table covered", extra={"table": table})
    for table, cause in kept.closed:
        log.warning("coverage ended", extra={"table": table, "cause": cause})
    return bool(kept.waiting)


def watch_store(settings: Settings) -> Watch:
    """Keeps the store's partitions, statistics, and counts of what happened when."""
    statement = sql.SQL("select {}()").format(sql.Identifier(settings.schema, "upkeep"))

    def look(conn: psycopg.Connection[Any]) -> None:
        conn.execute(statement)
        hourly.count(conn, settings.schema, settings.source)

    return Watch(settings.destination_url, "destination", look, interval=_UPKEEP_INTERVAL)
