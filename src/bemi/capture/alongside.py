"""A worker in a thread of this process, for commands that need one and can't be sure of it.

It runs only while no other worker holds the slot, and leaves when the command is done.
"""

import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Final

import psycopg

from bemi.capture import slot, worker
from bemi.config import Settings
from bemi.connections import connect
from bemi.errors import BemiError, PassingError, SetupError, SlotBusyError

_LOOK: Final = 1.0
"""Seconds between looks at the slot."""

_GRACE: Final = 5.0
"""Seconds that a slot which was held before may be free: its worker may be coming back."""


class Alongside:
    """Call `look` again and again while the history has to go on.

    With `accept_gap`, the gap that there is now is recorded and left behind.
    """

    def __init__(self, settings: Settings, *, accept_gap: bool = False) -> None:
        self._settings = settings
        self._accept_gap = accept_gap
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._conn: psycopg.Connection[Any] | None = None
        self._looked_at = -_LOOK
        self._held_at = -_GRACE

    def __enter__(self) -> "Alongside":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._conn is not None:
            self._conn.close()

    @property
    def works(self) -> bool:
        """Whether the worker is this one, and not somebody else's."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> None:
        """See that somebody captures. Raises what this process's own worker ended with."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        now = time.monotonic()
        if self.works or now - self._looked_at < _LOOK:
            return
        self._looked_at = now
        with contextlib.suppress(PassingError):  # who calls finds out, and waits
            if self._held():
                self._held_at = now
            elif now - self._held_at >= _GRACE:
                self._start()

    def _held(self) -> bool:
        settings = self._settings
        if self._conn is None or self._conn.closed:
            self._conn = connect(settings.source_url, what="source")
        found = slot.read(self._conn, settings.slot)
        if found is None:
            raise SetupError(
                f'the replication slot "{settings.slot}" is gone',
                fix="`bemi recover` makes another one, and finds out what changed meanwhile",
            )
        return found.active_pid is not None

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="bemi-alongside", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        accept_gap, self._accept_gap = self._accept_gap, False
        try:
            worker.run(
                self._settings, stop=self._stop, accept_gap=accept_gap, takes_baselines=False
            )
        except BemiError as error:
            # Another worker that has come meanwhile is as good.
            if not isinstance(error.__cause__, SlotBusyError):
                self._failure = error
        except BaseException as error:  # noqa: BLE001 - the thread that looks raises it again
            self._failure = error
