"""What the sources themselves say now. They are asked beside each other, in threads of their own,
and no more often than every few seconds, however many people look: an answer that is a little
older is told at once, and one that does not come is not waited for."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from typing import Final

import msgspec

from bemi.api.archive import Archive
from bemi.api.connecting import Connector
from bemi.errors import BemiError
from bemi.observed import Seen
from bemi.store import completeness, reader
from bemi.store import sources as stored

LASTS: Final = 5.0
"""Seconds for which an answer is told again; while it is younger than this, a new one is asked for,
and the old one told:"""
STALE: Final = 60.0
PATIENCE: Final = 2.0
"""Seconds to wait for an answer where there is none."""


class Told(msgspec.Struct, frozen=True):
    """What one source said, or why it could not be asked. `reason` may name its host."""

    asked_at: datetime
    seen: Seen | None = None
    reason: str = ""
    fix: str | None = None


class Lives:
    def __init__(self, archive: Archive, connector: Connector) -> None:
        self._archive = archive
        self._connector = connector
        self._lock = threading.Lock()
        self._asked: dict[str, Future[Told]] = {}
        self._told: dict[str, tuple[float, Told]] = {}

    def now(self) -> Mapping[str, Told | None]:
        """By the names of the sources that the server knows; None where one has not answered."""
        names = self._connector.settings
        waiting = [future for name in names if (future := self._ask(name)) is not None]
        for each in wait(waiting, PATIENCE).done:
            each.result()  # what nobody foresaw is not for a page to leave out
        with self._lock:
            told = {name: self._told.get(name) for name in names}
        now = time.monotonic()
        return {
            name: None if found is None or now - found[0] > STALE else found[1]
            for name, found in told.items()
        }

    def _ask(self, name: str) -> Future[Told] | None:
        """Has one asked where that is due; what there is to wait for, where nothing can be told
        without."""
        with self._lock:
            found = self._told.get(name)
            age = float("inf") if found is None else time.monotonic() - found[0]
            running = self._asked.get(name)
            if age > LASTS and running is None:
                running = self._asked[name] = Future()
                # A source that says nothing any more must not hold up the end of the process.
                thread = threading.Thread(
                    target=self._run, args=[name, running], name=f"bemi-{name}", daemon=True
                )
                thread.start()
        return running if age > STALE else None

    def _run(self, name: str, running: Future[Told]) -> None:
        try:
            running.set_result(self._look(name))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            running.set_exception(error)

    def _look(self, name: str) -> Told:
        told: Told | None = None
        try:
            told = self._seen(name)
        except BemiError as error:
            told = Told(datetime.now(UTC), reason=str(error), fix=error.fix)
        finally:
            with self._lock:
                del self._asked[name]
                if told is not None:
                    self._told[name] = (time.monotonic(), told)
        return told

    def _seen(self, name: str) -> Told:
        schema = self._archive.schema
        with self._archive.connected() as conn:
            status = next((s for s in reader.status(conn, schema) if s.source == name), None)
            covered = completeness.read(conn, schema, sources=(name,))
            known = stored.read(conn, schema, name)
        asked_at = datetime.now(UTC)
        if status is None or not covered:
            reason = "it is in the settings, but not in this history yet"
            return Told(asked_at, reason=reason, fix="run `bemi init`")
        if status.removed_at is not None:
            return Told(asked_at, reason="it was removed from this history")
        seen = self._connector.look(status, covered[0], None if known is None else known.setup)
        return Told(asked_at, seen)
