"""What operators decide about a source while its worker runs: `bemi source pause`, `resume`,
`remove`. They write it into the destination; workers look there every few seconds.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg

from bemi.config import Settings
from bemi.connections import connect, explained, make_lasting
from bemi.errors import BemiError
from bemi.store import sources
from bemi.store.sources import Standing

INTERVAL: Final = 2.0
"""Seconds between looks: one small query on a connection that stays open."""


class Decisions:
    """Reads what was decided about one source, over a connection that it opens when needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._conn: psycopg.Connection[Any] | None = None

    def __enter__(self) -> "Decisions":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look(self) -> Standing:
        """Raises BemiError; the next look connects again."""
        settings = self._settings
        try:
            with explained("destination"):
                if self._conn is None:
                    self._conn = connect(settings.destination_url, what="destination")
                    make_lasting(self._conn)
                return sources.standing(self._conn, settings.schema, settings.source)
        except BemiError:
            self.close()
            raise

    def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


@contextlib.contextmanager
def watched(settings: Settings, stopped: Callable[[], None]) -> Iterator[None]:
    """While the body runs, looks for a decision that the source is not to be captured.

    Calls `stopped` once when there is one. Failures are not told: who captures notices first when
    the destination is away.
    """
    done = threading.Event()

    def watch() -> None:
        with Decisions(settings) as decisions:
            while not done.is_set():
                with contextlib.suppress(BemiError):
                    if decisions.look() in ("paused", "removed"):
                        stopped()
                        return
                done.wait(INTERVAL)

    thread = threading.Thread(target=watch, name="bemi-decisions", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        # A look that hangs in the network ends with the process; it holds nothing.
        thread.join(INTERVAL)
