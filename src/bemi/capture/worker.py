"""Keeps the pipeline of one source going: what passes by itself is waited for, with growing
pauses; what does not ends the worker with an error that says what to do.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from bemi.capture.pipeline import Pipeline
from bemi.capture.session import open_session
from bemi.capture.sink import Sink
from bemi.capture.stitcher import MARK_PREFIX
from bemi.capture.watch import watch_store, watch_tables
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import BemiError, PassingError, RefusedError, SetupError, SlotBusyError
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints
from bemi.store.migrate import require_current

log = logging.getLogger("bemi.worker")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between tries; each is drawn from the pause's upper half, so that workers that were
stopped together do not come back together."""

_DRAIN: Final = 10.0
"""Seconds that a stopping worker gives the destination to take what was read."""

_SAY_AGAIN: Final = 30.0
"""Seconds after which the same reason for waiting is told again."""


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
        self._said: tuple[str, float] = ("", 0.0)
        self._others_position = Lsn(0)

    def run(self, until_caught_up: bool) -> None:
        pause = _FIRST_PAUSE
        busy_since: float | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if until_caught_up and self._target is None:
                    self._target = self._mark()
                self._capture()
                return
            except SlotBusyError as error:
                if self._target is not None and self._position() >= self._target:
                    return
                if busy_since is None or self._other_moves():
                    busy_since = began
                if time.monotonic() - busy_since > self._settings.slot_wait:
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

    def _capture(self) -> None:
        settings = self._settings
        with (
            open_session(settings, accept_gap=self._accept_gap, clock=self._clock) as session,
            watch_tables(session.rules),
            watch_store(settings),
        ):
            source, sink = session.source, session.sink
            self._has_run = True
            self._accept_gap = False  # the one that was there; a later one is another question
            self._said = ("", 0.0)
            log.info("capturing", extra={"source": settings.source, "position": str(sink.stored)})
            pipeline = Pipeline(source, session.stitcher, session.filter, session.masker, sink)
            pipeline.run(lambda: self._done(sink))
            sink.finish(_DRAIN)
            source.acknowledge(sink.stored)
        log.info("stopped", extra={"source": settings.source, "position": str(sink.stored)})

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
