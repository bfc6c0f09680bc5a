"""Follows the logs of all sources: pieces of changes in the order of each log, as they are stored.

Each piece is read in short statements and then given, so that nobody has to hurry, and a history
of any size takes the memory of one piece. Sources take turns, piece by piece.
"""

import logging
import os
import random
import selectors
import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import msgspec
import psycopg

from bemi.connections import connect, explained
from bemi.errors import (
    MissingChangesError,
    PassingError,
    RefusedError,
    UnknownStateError,
    UsageError,
)
from bemi.history import beginning
from bemi.history.beginning import Beginning
from bemi.history.cursor import Cursor, LogPlace
from bemi.history.untold import Untold
from bemi.store import log as logs
from bemi.store import reader
from bemi.store.filters import Filters, Portion, Window
from bemi.store.log import Head
from bemi.store.notices import LONGEST_WAIT, Listener
from bemi.store.reader import StoredChange
from bemi.store.schema_version import require_current

log = logging.getLogger("bemi.stream")

PIECE_BYTES: Final = 4 << 20
"""Bytes of images and contexts after which a piece is given, however many rows it has."""

_EVER: Final = (1 << 63) - 1
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

_CAPTURED: Final = ("CREATE", "UPDATE", "DELETE", "TRUNCATE")


class _Piece(msgspec.Struct):
    """`end`: where the log was read to; behind the last row, if that was too much."""

    rows: list[StoredChange]
    end: LogPlace


class Feed:
    """Where it stands is `cursor`, at each moment: behind the change that was given last.

    Gives each change that the filters let through and that is stored behind its beginning, once,
    whole transactions at a time, in the order of the source's log. It connects when it is made,
    and again whenever the destination broke off.
    """

    def __init__(
        self,
        url: str,
        schema: str,
        filters: Filters,
        start: Beginning,
        *,
        baseline: bool,
    ) -> None:
        operations = filters.operation or (*_CAPTURED, *(("SNAPSHOT",) if baseline else ()))
        self._filters = replace(filters, operation=operations, by_log=True, oldest_first=True)
        self._baseline = "SNAPSHOT" in operations
        self._url = url
        self._schema = schema
        self._untold = Untold(schema, filters.table)
        self._closed = threading.Event()
        self._running = False
        self._conn: psycopg.Connection[Any] | None = None
        # Of the loop that runs; close() may come in the middle of anything, as signals do.
        self._wake: tuple[int, int] | None = None
        self._waking = threading.RLock()
        try:
            with explained("destination"):
                conn, _ = self._connected()
                heads = self._heads(conn)
                _require_one(filters, heads)
                _look_for_table(conn, schema, filters)
                self._places = beginning.places(conn, schema, heads, start)
        except BaseException:
            self.close()
            raise

    @property
    def cursor(self) -> Cursor:
        return Cursor({**self._places})

    def close(self) -> None:
        """Ends what is being waited for, and the loop with it. From any thread, and twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._waking:
            if self._wake is not None:
                os.write(self._wake[1], b"\0")
        if not self._running:
            self._disconnect()

    def follow(
        self, *, timeout: float | None, until_caught_up: bool
    ) -> Generator[StoredChange | MissingChangesError]:
        """From where it stands. Ends when closed, after `timeout` seconds without a change, or
        behind what was captured when it began.

        The error is given, not raised, before it goes past changes that the history lacks.
        """
        if self._running:
            raise UsageError("the stream is being read already", fix="open another one")
        if self._closed.is_set():
            return
        self._running = True
        wake, waker = self._wake = os.pipe()
        stays = False
        try:
            for each in self._follow(timeout, until_caught_up, wake):
                yield each
                if self._closed.is_set():
                    break
            stays = timeout is not None and not until_caught_up
        finally:
            self._running = False
            with self._waking:
                self._wake = None
            os.close(wake)
            os.close(waker)
            if stays and not self._closed.is_set():
                self._be_deaf()
            else:
                self._disconnect()

    def _follow(
        self, timeout: float | None, until_caught_up: bool, wake: int
    ) -> Generator[StoredChange | MissingChangesError]:
        targets: dict[str, tuple[int, int]] | None = None
        deadline = _deadline(timeout)
        pause = _FIRST_PAUSE
        while not self._closed.is_set():
            try:
                with explained("destination"):
                    conn, listener = self._connected()
                    heads = self._heads(conn)
                    if pause != _FIRST_PAUSE:
                        pause = _FIRST_PAUSE
                        log.info("connected again")
                    if targets is None:
                        targets = {head.source: (head.epoch or 0, head.end) for head in heads}
                    moved = False
                    for head in heads:
                        place = self._place(head)
                        if place is None:
                            continue
                        for told, error in self._untold.due(conn, head, place):
                            place = msgspec.structs.replace(place, told=told)
                            self._places[head.source] = place
                            if error is not None:
                                yield error
                                deadline = _deadline(timeout)
                        piece = self._next(conn, head, place)
                        if piece is None:
                            continue
                        moved = True
                        if piece.rows:
                            listener.stop()
                        for row in piece.rows:
                            here = LogPlace(row.epoch, row.commit_position, row.ordinal)
                            self._reach(head.source, here)
                            yield row
                            deadline = _deadline(timeout)
                        self._reach(head.source, piece.end)
                    if until_caught_up and self._is_behind(targets):
                        return
                    if time.monotonic() >= deadline:
                        return
                    if moved:
                        continue
                    if not listener.started:
                        # What was stored before this is seen by the next look.
                        listener.start()
                        continue
                    left = min(LONGEST_WAIT, deadline - time.monotonic())
                    listener.wait(left, wake=wake)
            except (PassingError, RefusedError) as error:
                self._disconnect()
                if pause == _FIRST_PAUSE:
                    log.warning("waiting", extra={"reason": str(error)})
                _pause(min(pause, deadline - time.monotonic()), wake)
                if time.monotonic() >= deadline:
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)

    # --- one piece ----------------------------------------------------------------------------

    def _next(self, conn: psycopg.Connection[Any], head: Head, place: LogPlace) -> _Piece | None:
        """What follows in the log of a source; None where nothing does yet."""
        end = self._end_of(head, place)
        if place.commit >= end:
            following = [epoch for epoch in head.starts if epoch > place.epoch]
            if place.epoch == head.epoch or not following:
                return None
            return _Piece([], LogPlace(following[0], head.starts[following[0]]))
        ahead = self._untold.ahead(head.source, place.epoch)
        end = logs.window_end(conn, self._schema, place.commit, min([end, *ahead]))
        if end == place.commit:
            return self._portion(conn, head, place)
        within = Window(place.epoch, place.commit, place.ordinal, end)
        return self._read(conn, head, within, LogPlace(place.epoch, end))

    def _place(self, head: Head) -> LogPlace | None:
        """Where it stands in the log of a source; None where there is none yet."""
        if head.epoch is None:
            return None
        first, start = next(iter(head.starts.items()))
        place = self._places.setdefault(head.source, LogPlace(first, start))
        if place.epoch not in head.starts:
            raise UsageError(
                f"the cursor is of another history: {head.source} has no epoch {place.epoch} here",
                fix="begin with `beginning` or `now`",
            )
        return place

    def _end_of(self, head: Head, place: LogPlace) -> int:
        """Before what position to read just now, of the epoch that the place is in."""
        if place.epoch == head.epoch:
            return head.end
        return self._untold.end_of_epoch(head.source, place.epoch) or _EVER

    def _portion(self, conn: psycopg.Connection[Any], head: Head, place: LogPlace) -> _Piece:
        """Of a transaction that is too large for one piece."""
        behind = LogPlace(place.epoch, place.commit + 1)
        at = logs.committed_at(conn, self._schema, place.epoch, place.commit)
        if at is None:  # it is another source's
            return _Piece([], behind)
        last = place.ordinal + logs.WINDOW
        if last < logs.last_ordinal(conn, self._schema, at, place.epoch, place.commit):
            behind = LogPlace(place.epoch, place.commit, last)
        within = Portion(at, place.epoch, place.commit, place.ordinal, last)
        return self._read(conn, head, within, behind)

    def _read(
        self,
        conn: psycopg.Connection[Any],
        head: Head,
        within: Window | Portion,
        behind: LogPlace,
    ) -> _Piece:
        wanted = replace(self._filters, source=head.source, within=within)
        rows: list[StoredChange] = []
        size = 0
        with closing(reader.portion(conn, self._schema, wanted)) as found:
            for row in found:
                rows.append(row)
                size += len(row.before) + len(row.after) + len(row.context)
                if size >= PIECE_BYTES:
                    behind = LogPlace(row.epoch, row.commit_position, row.ordinal)
                    break
        return _Piece(rows, behind)

    def _reach(self, source: str, place: LogPlace) -> None:
        told = self._places[source].told
        self._places[source] = msgspec.structs.replace(place, told=told)

    def _is_behind(self, targets: dict[str, tuple[int, int]]) -> bool:
        return all(
            source in self._places and self._places[source].position >= target
            for source, target in targets.items()
            if target[0]
        )

    # --- the connection -----------------------------------------------------------------------

    def _connected(self) -> tuple[psycopg.Connection[Any], Listener]:
        if self._conn is None:
            self._conn = connect(self._url, what="destination", client_encoding="utf8")
            # Nothing is left behind in a session, which may be a pooler's.
            self._conn.prepare_threshold = None
            require_current(self._conn, self._schema)
            self._listener = Listener(self._conn, self._schema)
        return self._conn, self._listener

    def _heads(self, conn: psycopg.Connection[Any]) -> list[Head]:
        found = logs.heads(conn, self._schema, baseline=self._baseline)
        if self._filters.source is None:
            return found
        return [head for head in found if head.source == self._filters.source]

    def _be_deaf(self) -> None:
        """Nobody waits until the next loop."""
        try:
            if self._conn is not None:
                self._listener.stop()
        except psycopg.Error:
            self._disconnect()

    def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def _pause(seconds: float, wake: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ)
        selector.select(max(seconds, 0.0) * random.uniform(0.5, 1.0))


def _deadline(timeout: float | None) -> float:
    return float("inf") if timeout is None else time.monotonic() + timeout


def _require_one(filters: Filters, heads: list[Head]) -> None:
    if filters.source is not None and not heads:
        raise UsageError(f"the history has no source {filters.source}")
    if {filters.from_position, filters.to_position} != {None} and len(heads) > 1:
        raise UsageError(
            "positions are those of one source's log",
            fix=f"name one of them: {', '.join(head.source for head in heads)}",
        )


def _look_for_table(conn: psycopg.Connection[Any], schema: str, filters: Filters) -> None:
    """Says that there is none: it may come, or be misspelled."""
    table = filters.table
    if table is None:
        return
    name = table if "." in table else f"public.{table}"
    try:
        reader.source_of(conn, schema, name)
    except UsageError:
        pass  # several have it
    except UnknownStateError:
        log.warning("no such table yet", extra={"reason": f"the history has no {name}"})
