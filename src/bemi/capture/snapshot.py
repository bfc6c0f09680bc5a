"""Takes the baselines that tables lack, one table after the other, through what passes by itself.

What concerns one table is its result, and the others go on.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg

from bemi.capture import coverage
from bemi.capture.baseline import BaselineTaker
from bemi.capture.ledger import BaselineBusyError, RulesDifferError
from bemi.capture.pace import Pace
from bemi.capture.results import Reports, Result, StoppedError
from bemi.capture.watch import Watch
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import PassingError, TableError
from bemi.store import baselines, sources
from bemi.store import checkpoint as checkpoints
from bemi.store.baselines import Interval, IntervalEndedError

log = logging.getLogger("bemi.baseline")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

_SETTLING: Final = 15.0
"""Seconds in which a worker that just started has declared its rules."""

_LOOK: Final = 10.0
"""Seconds between looks for tables that lack a baseline."""

_GIVEN_UP: Final = 600.0
"""Seconds until a table that could not be read is tried again."""

_INTERVAL_TRIES: Final = 3
"""How often a table whose coverage ended meanwhile is begun with again, in its next stretch."""


class Snapshot:
    """Takes baselines of the tables that are `chosen`; see `BaselineTaker` for the rest."""

    def __init__(
        self,
        settings: Settings,
        *,
        chosen: Callable[[Interval], bool],
        pace: Pace = Pace(),  # noqa: B008 - frozen
        reports: Reports,
        captures: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._chosen = chosen
        self._pace = pace
        self._reports = reports
        self._captures = captures
        self._stop = stop
        self._results: dict[int, Result] = {}
        self._ended: dict[int, int] = {}

    @property
    def results(self) -> list[Result]:
        """So far, in the order in which they came."""
        return list(self._results.values())

    def run(self) -> None:
        """Until all have theirs. Raises `StoppedError`, and `BemiError` for what concerns all."""
        pause = _FIRST_PAUSE
        began = time.monotonic()
        while not self._stop.is_set():
            try:
                self._captures()
                self._take_all()
                return
            except RulesDifferError as error:
                if time.monotonic() - began > _SETTLING:
                    raise
                reason = str(error)
            except (PassingError, BaselineBusyError) as error:
                reason = str(error)
            if pause >= 1.0:
                self._reports.waiting(reason)
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _take_all(self) -> None:
        with BaselineTaker(
            self._settings,
            pace=self._pace,
            reports=self._reports,
            captures=self._captures,
            stop=self._stop,
        ) as taker:
            while (interval := self._next(taker)) is not None:
                result = self._take(taker, interval)
                if result is not None:
                    self._results[interval.relation] = result
                    self._reports.finished(result)

    def _next(self, taker: BaselineTaker) -> Interval | None:
        return next(
            (
                interval
                for interval in taker.intervals()
                if interval.relation not in self._results and self._chosen(interval)
            ),
            None,
        )

    def _take(self, taker: BaselineTaker, interval: Interval) -> Result | None:
        try:
            return taker.take(interval)
        except TableError as error:
            return Result(interval.name, error=str(error), fix=error.fix)
        except IntervalEndedError as error:
            tries = self._ended[interval.relation] = self._ended.get(interval.relation, 0) + 1
            goes_on = any(each.relation == interval.relation for each in taker.intervals())
            if goes_on and tries < _INTERVAL_TRIES:
                return None
            return Result(interval.name, error=str(error), fix=error.fix)


def ask(settings: Settings, chosen: Callable[[Interval], bool]) -> None:
    """Note that the baselines of these are to be taken, so that none is forgotten when stopped."""
    with connect(settings.destination_url, what="destination") as conn, explained("destination"):
        stored = sources.read(conn, settings.schema, settings.source)
        if stored is None:
            return
        open_now = baselines.intervals(conn, settings.schema, stored.source_id)
        wanted = [interval for interval in open_now if chosen(interval)]
        baselines.ask(conn, settings.schema, stored.source_id, wanted)


@contextlib.contextmanager
def watch_baselines(settings: Settings) -> Iterator[None]:
    """While a worker runs: take the baselines that tables lack, where `init` was told to."""
    stop = threading.Event()
    given_up: dict[int, float] = {}

    def lacks(interval: Interval) -> bool:
        return interval.lacks_baseline and given_up.get(interval.relation, 0.0) < time.monotonic()

    def look(conn: psycopg.Connection[Any]) -> None:
        stored = sources.read(conn, settings.schema, settings.source)
        if stored is None or not stored.setup.snapshot:
            return
        open_now = baselines.intervals(conn, settings.schema, stored.source_id)
        if not any(lacks(interval) for interval in open_now):
            return
        taken = Snapshot(
            settings, chosen=lacks, reports=_Logged(), captures=lambda: None, stop=stop
        )
        with contextlib.suppress(StoppedError):
            taken.run()
        failed = {result.table for result in taken.results if result.error is not None}
        given_up.update(
            (interval.relation, time.monotonic() + _GIVEN_UP)
            for interval in open_now
            if interval.name in failed
        )

    with Watch(settings.destination_url, "destination", look, interval=_LOOK):
        try:
            yield
        finally:
            stop.set()


class _Logged:
    """How it goes, in the worker's log."""

    def table(self, name: str, done: int, estimate: int) -> None:
        log.info("taking a baseline", extra={"table": name, "rows": done, "of_about": estimate})

    def rows(self, done: int) -> None:
        pass

    def waiting(self, reason: str) -> None:
        log.debug("waiting", extra={"reason": reason})

    def finished(self, result: Result) -> None:
        if result.error is None:
            log.info("baseline stored", extra={"table": result.table, "rows": result.rows})
            return
        extra = {"table": result.table, "reason": result.error, "fix": result.fix}
        log.warning("baseline not taken", extra=extra)


def begin_coverage(
    settings: Settings,
    report: Callable[[str], None],
    *,
    chosen: Callable[[Interval], bool] = lambda _: False,
) -> tuple[str, ...]:
    """Begin the coverage of published tables, as a worker does; those that can't be yet.

    Of the `chosen` ones, begin anew with those of which changes are missing since their state was
    known: the next baseline then tells what became of their rows.
    """
    with (
        connect(settings.source_url, what="source") as source,
        connect(settings.destination_url, what="destination") as destination,
    ):
        with explained("destination"):
            held = checkpoints.read(destination, settings.schema, settings.source)
        if held is None:
            return ()
        kept = coverage.keep(
            source,
            destination,
            schema=settings.schema,
            publication=settings.publication,
            source_id=held.source_id,
            epoch=held.epoch,
            patience=30.0,
            verify=False,
            report=report,
        )
        for interval in baselines.intervals(destination, settings.schema, held.source_id):
            if interval.lost and chosen(interval):
                coverage.begin_anew(
                    source,
                    destination,
                    schema=settings.schema,
                    interval_id=interval.interval_id,
                    relation=interval.relation,
                )
    return kept.waiting
