"""Keeps the workers of several sources going in one process, each in a thread of its own.

What fails one source never stops the others: it is told, and tried again. One source alone is the
plain case: then its failure is the fleet's. Which sources there are may change meanwhile.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Final, Literal, TypeAlias

from bemi.capture import decisions
from bemi.capture.decisions import Decisions
from bemi.capture.worker import Worker
from bemi.config import Settings
from bemi.errors import BemiError, RemovedError
from bemi.store.sources import Standing

log = logging.getLogger("bemi.worker")

SOURCE: Final[ContextVar[str]] = ContextVar("bemi_source")
"""The source that a thread works for, so that each line of the log can name it."""

_TRY_AGAIN: Final = 30.0
"""Seconds until a source that failed is tried again, unless something is done about it before."""

_LOOK: Final = 2.0
"""Seconds between looks for other settings."""

Refresh: TypeAlias = Callable[[bool], Sequence[Settings] | None]
"""The settings, where they are other ones than before; told whether they were asked for."""


class Fleet:
    """The workers of some sources. `stop` and `reload` may be called by signal handlers."""

    def __init__(
        self,
        settings: Sequence[Settings],
        *,
        until_caught_up: bool = False,
        accept_gap: bool = False,
        refresh: Refresh | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._until_caught_up = until_caught_up
        self._accept_gap = accept_gap
        self._refresh = refresh
        self._clock = clock
        # Putting is safe in a signal handler, which setting an event that is waited for is not.
        self._told: queue.SimpleQueue[_Told] = queue.SimpleQueue()
        self._members = {each.source: self._member(each) for each in settings}
        self._leaving: list[Member] = []

    def stop(self) -> None:
        """End all in order: what was read is stored."""
        self._told.put("stop")

    def reload(self) -> None:
        """Ask for the settings now."""
        self._told.put("reload")

    def run(self) -> bool:
        """Until `stop`, or all have caught up where that was asked for; whether all is well.

        Raises what ended the worker of a source that is alone.
        """
        for member in self._members.values():
            member.start()
        stopped = False
        while any(member.running for member in (*self._members.values(), *self._leaving)):
            told = self._next()
            if told == "stop":
                stopped = True
                for member in self._members.values():
                    member.stop()
            elif not stopped and told != "ended":
                self._look(asked=told == "reload")
            self._leaving = [member for member in self._leaving if member.running]
        failures = [member.failure for member in self._members.values()]
        if len(failures) == 1 and failures[0] is not None:
            raise failures[0]
        return failures == [None] * len(failures)

    def _next(self) -> "_Told | None":
        try:
            return self._told.get(timeout=_LOOK)
        except queue.Empty:
            return None

    def _look(self, *, asked: bool) -> None:
        wanted = None if self._refresh is None else self._refresh(asked)
        if wanted is None:
            return
        named = {settings.source: settings for settings in wanted}
        for name in [name for name in self._members if name not in named]:
            log.info("source is not in the settings any more", extra={"source": name})
            member = self._members.pop(name)
            member.stop()
            self._leaving.append(member)
        for name, settings in named.items():
            if name not in self._members:
                log.info("source is new in the settings", extra={"source": name})
                self._members[name] = self._member(settings)
                self._members[name].start()
            elif self._members[name].settings != settings:
                log.info("settings changed", extra={"source": name})
                self._members[name].change(settings)

    def _member(self, settings: Settings) -> "Member":
        return Member(
            settings,
            accept_gap=self._accept_gap,
            until_caught_up=self._until_caught_up,
            clock=self._clock,
            alone=lambda: len(self._members) == 1,
            ended=lambda: self._told.put("ended"),
        )


_Told: TypeAlias = Literal["stop", "reload", "ended"]


class Member:
    """One source of a fleet, with its worker and its thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        accept_gap: bool,
        until_caught_up: bool,
        clock: Callable[[], float],
        alone: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.failure: Exception | None = None
        """Why it does not run, or why its last try failed."""
        self._until_caught_up = until_caught_up
        self._alone = alone
        self._told_end = ended
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._worker = Worker(
            settings, stop=self._stop, accept_gap=accept_gap, clock=clock, well=self._is_well
        )
        name = f"bemi-{settings.source}"
        # A daemon, so that a second signal ends the process at once.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.running = False

    def start(self) -> None:
        self.running = True
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._changed.set()

    def change(self, settings: Settings) -> None:
        self.settings = settings
        self._worker.change(settings)
        self._changed.set()

    def _run(self) -> None:
        SOURCE.set(self.settings.source)
        try:
            self._keep()
        finally:
            self.running = False
            self._told_end()

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._changed.clear()
            try:
                self._worker.run(self._until_caught_up)
            except Exception as error:  # noqa: BLE001 - of whatever kind, it is this source's alone
                self.failure = error
            else:
                return
            if self._alone():
                return
            removed = isinstance(self.failure, RemovedError)
            if removed:
                self.failure = None
                log.info("source let go, since it was removed", extra=self._extra)
            else:
                self._tell(self.failure)
            if self._until_caught_up:
                return
            self._wait(removed=removed)

    def _is_well(self) -> None:
        self.failure = None

    @property
    def _extra(self) -> dict[str, object]:
        return {"source": self.settings.source}

    def _tell(self, failure: Exception) -> None:
        extra = {**self._extra, "reason": str(failure)}
        if isinstance(failure, BemiError):
            log.error("failed", extra={**extra, "fix": failure.fix})
        else:
            log.error("failed", extra=extra, exc_info=failure)

    def _wait(self, *, removed: bool) -> None:
        """Until it is time to try again, or something was decided that may have mended it.

        What was removed is waited for until it is added again.
        """
        until = time.monotonic() + _TRY_AGAIN
        before: Standing | None = None
        with Decisions(self.settings) as decided:
            while not self._stop.is_set() and not self._changed.is_set():
                try:
                    now = decided.look()
                except BemiError:
                    now = before or "unknown"
                if before is not None and now != before:
                    return
                before = now
                if not removed and time.monotonic() > until:
                    return
                self._changed.wait(decisions.INTERVAL)
