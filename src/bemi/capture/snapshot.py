"""Takes the baselines that tables lack, one table after the other, through what passes by itself.

What concerns one table is its result, and the others go on.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from bemi.capture import coverage
from bemi.capture.baseline import BaselineTaker, Pace, Reports, Result
from bemi.capture.ledger import BaselineBusyError, RulesDifferError
from bemi.config import Settings
from bemi.connections import connect
from bemi.errors import PassingError, TableError
from bemi.store import checkpoint as checkpoints
from bemi.store.baselines import Interval, IntervalEndedError

log = logging.getLogger("bemi.baseline")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

_SETTLING: Final = 15.0
"""Seconds in which a worker that just started has declared its rules, and the server has noticed
that a process which took baselines is gone."""

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
            except (RulesDifferError, BaselineBusyError) as error:
                if time.monotonic() - began > _SETTLING:
                    raise
                reason = str(error)
            except PassingError as error:
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


def begin_coverage(settings: Settings, report: Callable[[str], None]) -> tuple[str, ...]:
    """Begin the coverage of published tables, as a worker does; those that can't be yet."""
    with (
        connect(settings.source_url, what="source") as source,
        connect(settings.destination_url, what="destination") as destination,
    ):
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
    return kept.waiting
