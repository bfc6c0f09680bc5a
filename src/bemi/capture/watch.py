"""Notices tables made after `init`, beside the stream and in its own rhythm."""

import logging
import threading
from types import TracebackType
from typing import Any, Final

import psycopg

from bemi.capture.tables import add_new_tables
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import BemiError

log = logging.getLogger("bemi.watch")

_INTERVAL: Final = 10.0
"""Seconds between looks at the catalog; a look costs the source a few milliseconds."""


class TableWatch:
    """Looks for new tables while it is entered. Its failures are told and end nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._watch, name="bemi-watch", daemon=True)

    def __enter__(self) -> "TableWatch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(2.0)

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                with (
                    connect(self._settings.source_url, what="source") as conn,
                    explained("source"),
                ):
                    while not self._stop.is_set():
                        self._look(conn)
                        self._stop.wait(_INTERVAL)
            except BemiError as error:
                log.warning("can't look for new tables", extra={"reason": str(error)})
                self._stop.wait(_INTERVAL)

    def _look(self, conn: psycopg.Connection[Any]) -> None:
        found = add_new_tables(conn, self._settings)
        for state in found.added:
            log.info("table added", extra={"table": state.qualified})
        for level, states in ((logging.WARNING, found.untracked), (logging.ERROR, found.failing)):
            for state in states:
                told = f"{state.qualified}: {state.reason}"
                if told not in self._told:
                    self._told.add(told)
                    log.log(
                        level,
                        "table not tracked" if not state.published else "table without identity",
                        extra={
                            "table": state.qualified,
                            "reason": state.reason,
                            "fix": state.fix,
                        },
                    )
