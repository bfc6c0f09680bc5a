"""Keeps the pipeline of one source going: what passes by itself is waited for, with growing
pauses; what does not ends the worker with an error that says what to do. While the source is
paused, or its settings change, the stream is closed in order and goes on from the checkpoint.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from bemi.capture import decisions, slot
from bemi.capture.continuity import lost
from bemi.capture.decisions import Decisions
from bemi.capture.pipeline import Pipeline
from bemi.capture.session import open_session
from bemi.capture.sink import Sink
from bemi.capture.snapshot import watch_baselines
from bemi.capture.stitcher import MARK_PREFIX
from bemi.capture.watch import watch_store, watch_tables
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import (
    BemiError,
    PassingError,
    RefusedError,
    RemovedError,
    RestoredError,
    SetupError,
    SlotBusyError,
)
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints
from bemi.store.schema_version import require_current

log = logging.getLogger("bemi.worker")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between tries; each is drawn from the pause's upper half, so that workers that were
stopped together do not come back together."""

_DRAIN: Final = 10.0
"""Seconds that a stopping worker gives the destination to take what was read."""

_SAY_AGAIN: Final = 30.0
"""Seconds after which the same reason for waiting is told again."""

_SAY_PAUSED_AGAIN: Final = 600.0
"""Seconds after which a paused source's growing WAL is told again."""

_OWN_SLOT_WAIT: Final = 30.0
"""Seconds that the source may take to free a slot that this worker itself has held."""


def run(
    settings: Settings,
    *,
    stop: threading.Event,
    until_caught_up: bool = False,
    accept_gap: bool = False,
    takes_baselines: bool = True,
    clock: Callable[[], float] = time.time,
) -> None:
    """Capture until `stop` is set, or all that was committed before this call is stored.

    With `accept_gap`, changes that can't be had any more are recorded as a gap and left
    behind. `takes_baselines`: where `init` was told to let workers do so. Raises `BemiError` for
    what waiting will not mend, `GapError` among it.
    """
    Worker(
        settings, stop=stop, accept_gap=accept_gap, takes_baselines=takes_baselines, clock=clock
    ).run(until_caught_up)


class Worker:
    """One source's worker. It holds the slot while a session lasts, so there is only one.

    Raises `BemiError` for what waiting will not mend: `GapError` and `RemovedError` among it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        stop: threading.Event,
        accept_gap: bool,
        takes_baselines: bool = True,
        clock: Callable[[], float],
        well: Callable[[], None] = lambda: None,
    ) -> None:
        """`well` is called when the source is captured, or paused as was decided."""
        self._settings = settings
        self._next = settings
        self._stop = stop
        self._leave = threading.Event()
        """The session that there is shall end, and another one begin."""
        self._accept_gap = accept_gap
        self._restored: str | None = None
        self._takes_baselines = takes_baselines
        self._clock = clock
        self._well = well
        self._target: Lsn | None = None
        self._has_run = False
        self._said: tuple[str, float] = ("", 0.0)
        self._others_position = Lsn(0)

    def change(self, settings: Settings) -> None:
        """Go on with other settings of the same source. May be called by another thread.

        No change is lost: the session ends in order, and the next one begins where the history
        ends.
        """
        self._next = settings
        self._leave.set()

    def run(self, until_caught_up: bool) -> None:
        pause = _FIRST_PAUSE
        busy_since: float | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            self._leave.clear()  # before the settings are taken: what comes then ends the session
            self._settings = self._next
            try:
                self._wait_while_paused(until_caught_up)
                if self._ended():
                    continue
                if until_caught_up and self._target is None:
                    self._target = self._mark()
                if self._capture():
                    return
                pause, busy_since = _FIRST_PAUSE, None
                continue
            except SlotBusyError as error:
                if self._target is not None and self._position() >= self._target:
                    return
                if busy_since is None or self._other_moves():
                    busy_since = began
                own = _OWN_SLOT_WAIT if self._has_run else 0.0
                if time.monotonic() - busy_since > max(self._settings.slot_wait, own):
                    raise SetupError(str(error), fix=error.fix) from error
                self._say(error)
                pause = min(pause, _LONGEST_PAUSE / 5)
            except PassingError as error:
                busy_since = None
                self._say(error)
            except RefusedError as error:
                # An unknown refusal, by a server that this worker has already worked with.
                if not self._has_run:
                    raise
                self._say(error)
            if time.monotonic() - began > 2 * _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            self._stop.wait(random.uniform(pause / 2, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _capture(self) -> bool:
        """One session; whether all is done that was asked for."""
        accepted = self._accept_gap
        try:
            return self._session()
        except RestoredError as error:
            if not accepted:
                raise lost(str(error)) from error
            self._accept_gap, self._restored = True, str(error)
            return False

    def _session(self) -> bool:
        settings = self._settings
        with (
            open_session(
                settings,
                accept_gap=self._accept_gap,
                restored=self._restored,
                clock=self._clock,
            ) as session,
            watch_tables(session.rules, session.sink.proofs),
            watch_store(settings),
            watch_baselines(settings) if self._takes_baselines else contextlib.nullcontext(),
            decisions.watched(settings, self._leave.set),
        ):
            source, sink = session.source, session.sink
            self._has_run = True
            self._well()
            # The one that was there; a later one is another question.
            self._accept_gap, self._restored = False, None
            self._said = ("", 0.0)
            log.info("capturing", extra={"source": settings.source, "position": str(sink.stored)})
            pipeline = Pipeline(source, session.stitcher, session.filter, session.masker, sink)
            pipeline.run(lambda: self._reached(sink) or self._ended())
            sink.finish(_DRAIN)
            source.acknowledge(sink.acknowledgeable)
        log.info("stopped", extra={"source": settings.source, "position": str(sink.stored)})
        return self._reached(sink) or self._stop.is_set()

    def _reached(self, sink: Sink) -> bool:
        return self._target is not None and sink.stored >= self._target

    def _ended(self) -> bool:
        return self._stop.is_set() or self._leave.is_set()

    def _wait_while_paused(self, until_caught_up: bool) -> None:
        """Until the source may be captured, or `_ended`. Raises `RemovedError`."""
        settings = self._settings
        said: float | None = None
        with Decisions(settings) as decided:
            while not self._ended():
                standing = decided.look()
                if standing == "removed":
                    raise RemovedError(
                        f"the source {settings.source} was removed, and its history kept",
                        fix=f"`bemi source add {settings.source}` adds it again",
                    )
                if standing != "paused":
                    return
                if until_caught_up:
                    raise SetupError(
                        f"the source {settings.source} is paused, so its history does not go on",
                        fix=f"run `bemi source resume {settings.source}`",
                    )
                self._well()
                if said is None or time.monotonic() - said > _SAY_PAUSED_AGAIN:
                    said = time.monotonic()
                    extra = {"source": settings.source, "kept": self._kept_wal()}
                    log.warning("paused, and the source keeps its WAL", extra=extra)
                self._stop.wait(decisions.INTERVAL)

    def _kept_wal(self) -> int | None:
        """Bytes; None where the source can't be asked, which is no reason to end a pause."""
        with contextlib.suppress(BemiError):
            with connect(self._settings.source_url, what="source") as conn:
                found = slot.read(conn, self._settings.slot)
            return None if found is None else found.retained
        return None

    def _mark(self) -> Lsn:
        """A position that all transactions committed by now end before.

        The mark asks the worker that sees it, this one or another, for a prompt checkpoint.
        """
        with (
            connect(self._settings.source_url, what="source") as conn,
            explained("source"),
            conn.transaction(),
        ):
            # Flushed here, so that it is sent; a standby that is away must not hold it up.
            conn.execute("set local synchronous_commit to local")
            row = conn.execute(
                "select pg_logical_emit_message(true, %s, '')::text", [MARK_PREFIX]
            ).fetchone()
        assert row is not None
        return Lsn.parse(row[0])

    def _position(self) -> Lsn:
        """Where the history ends, whichever worker writes it."""
        settings = self._settings
        with (
            connect(settings.destination_url, what="destination") as conn,
            explained("destination"),
        ):
            require_current(conn, settings.schema)
            found = checkpoints.read(conn, settings.schema, settings.source)
        return Lsn(0) if found is None else found.position

    def _other_moves(self) -> bool:
        """Whether the worker that holds the slot, which this one waits for, makes progress.

        Only of interest to one that waits for a position, not for the slot.
        """
        if self._target is None:
            return False
        position = self._position()
        moved = position > self._others_position
        self._others_position = position
        return moved

    def _say(self, error: BemiError) -> None:
        reason, now = str(error), time.monotonic()
        if reason == self._said[0] and now - self._said[1] < _SAY_AGAIN:
            return
        self._said = (reason, now)
        log.warning("waiting", extra={"reason": reason, "fix": error.fix})
