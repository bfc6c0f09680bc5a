"""Taking baselines from the command line: stopped with Ctrl-C, with a bar or lines of progress."""

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from bemi.capture.results import Result
    from bemi.config import Settings
    from bemi.store.baselines import Interval

    Before = Callable[[Settings, Callable[[], None], threading.Event], None]

_LINE_EVERY: Final = 10.0
_REASON_EVERY: Final = 30.0
"""Seconds between lines that say how far a table is, and why nothing moves."""


def take(
    settings: "Settings",
    chosen: "Callable[[Interval], bool]",
    *,
    rate: int | None = None,
    chunk_rows: int | None = None,
    before: "Before | None" = None,
    accept_gap: bool = False,
    quiet: bool,
) -> "tuple[Sequence[Result], bool]":
    """Take baselines and tell how it goes; the results, and whether it was stopped before its end.

    `before` is done once somebody captures, who accepts a gap with `accept_gap`. `quiet`:
    standard output is kept for something else. Raises BemiError.
    """
    from bemi.capture.alongside import Alongside
    from bemi.capture.look import Limits
    from bemi.capture.pace import Pace
    from bemi.capture.results import Result, StoppedError
    from bemi.capture.snapshot import Snapshot, begin_coverage

    limits = Limits() if chunk_rows is None else Limits(rows=chunk_rows)
    stop = threading.Event()
    with (
        reporting(quiet) as reports,
        _stopping(stop),
        Alongside(settings, accept_gap=accept_gap) as alongside,
    ):
        snapshot = Snapshot(
            settings,
            chosen=chosen,
            pace=Pace(limits, rate),
            reports=reports,
            captures=alongside.look,
            stop=stop,
        )
        if before is not None:
            before(settings, alongside.look, stop)
        waiting = () if stop.is_set() else begin_coverage(settings, reports.waiting, chosen=chosen)
        with contextlib.suppress(StoppedError):
            snapshot.run()
    busy = [
        Result(
            name,
            error="transactions that were open before it was tracked have not ended",
            fix="let them end, then run the command again",
        )
        for name in waiting
    ]
    return [*snapshot.results, *busy], stop.is_set()


def told(result: "Result") -> str:
    """One table's result, in a line."""
    from bemi.cli.output import count

    if result.error is not None:
        return f"{result.table}: not taken: {result.error}"
    line = f"{result.table}: {count(result.rows, 'row')}"
    if result.compared and result.itemised:
        line += (
            f"; since it was last seen {result.created:,} created, {result.updated:,} updated,"
            f" {result.deleted:,} deleted"
        )
    elif result.compared:
        line += "; without a key, it can't be told what changed since it was last seen"
    if result.incomplete:
        line += (
            f"; {count(result.incomplete, 'row')} with a value that is not known until it changes"
        )
    return line


def so_far(done: int, total: int | None, rate: float | None) -> str:
    """`70,000/200,000 rows, 12,000 rows/s`."""
    rows = f"{done:,} rows" if total is None else f"{done:,}/{total:,} rows"
    return rows if rate is None else f"{rows}, {rate:,.0f} rows/s"


class _Lines:
    """How it goes, for logs and pipes: a line now and then."""

    def __init__(self, to: Any) -> None:
        self._to = to
        self._name = ""
        self._told_at = 0.0
        self._began = (0.0, 0)
        self._reason = ("", 0.0)

    def say(self, line: str) -> None:
        from bemi.cli.output import printable

        print(printable(line), file=self._to, flush=True)

    def table(self, name: str, done: int, estimate: int) -> None:
        self._name, self._told_at = name, time.monotonic()
        self._began = (self._told_at, done)
        about = f", of about {estimate:,}" if estimate else ""
        self.say(
            f"{name}: goes on behind {done:,} rows{about}" if done else f"{name}: begins{about}"
        )

    def rows(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told_at > _LINE_EVERY:
            self._told_at = now
            began, had = self._began
            rate = (done - had) / max(now - began, 0.001)
            self.say(f"{self._name}: so far {so_far(done, None, rate)}")

    def waiting(self, reason: str) -> None:
        kind = reason.rstrip("0123456789., ")[:20]
        if kind != self._reason[0] or time.monotonic() - self._reason[1] > _REASON_EVERY:
            self._reason = (kind, time.monotonic())
            self.say(f"waiting: {reason}")

    def finished(self, result: "Result") -> None:
        self.say(told(result))


class _Bar:
    """How it goes, on a terminal."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._name = ""

    def say(self, line: str) -> None:
        from bemi.cli.output import text

        self._progress.console.print(text(line))

    def table(self, name: str, done: int, estimate: int) -> None:
        from bemi.cli.output import printable

        self._drop()
        self._name = printable(name)
        self._task = self._progress.add_task(
            self._name, total=max(estimate, done) or None, completed=done, rows="", reason=""
        )

    def rows(self, done: int) -> None:
        if self._task is None:
            return
        task = self._progress.tasks[-1]
        total = None if task.total is None else max(int(task.total), done)
        self._progress.update(self._task, completed=done, total=total, reason="")
        self._progress.update(self._task, rows=so_far(done, total, task.speed))

    def waiting(self, reason: str) -> None:
        from bemi.cli.output import printable

        if self._task is None:
            self._task = self._progress.add_task("", total=None, rows="", reason="")
        self._progress.update(self._task, reason=printable(reason))

    def finished(self, result: "Result") -> None:
        self._drop()
        self.say(told(result))

    def _drop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


@contextlib.contextmanager
def reporting(quiet: bool) -> "Iterator[_Lines | _Bar]":
    if quiet or not sys.stdout.isatty():
        lines = _Lines(sys.stderr if quiet else sys.stdout)
        with warnings_told(lines.say):
            yield lines
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from bemi.cli.output import console

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rows]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[reason]}", markup=False),
        console=console(),
        transient=True,
    )
    with progress:
        bar = _Bar(progress)
        with warnings_told(bar.say):
            yield bar


@contextlib.contextmanager
def warnings_told(say: Callable[[str], None]) -> Iterator[None]:
    """What the worker alongside warns of, among the lines of this command."""
    from bemi.cli.logs import redacted

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = vars(record)
            parts = [fields.get(name) for name in ("table", "reason", "cause")]
            say(redacted(": ".join([record.getMessage(), *(str(part) for part in parts if part)])))
            if fix := fields.get("fix"):
                say(redacted(f"  fix: {fix}"))

    handler = Handler(logging.WARNING)
    logger = logging.getLogger("bemi")
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


@contextlib.contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C ends it in order; a second one ends it at once."""
    before = signal.getsignal(signal.SIGINT)

    def handle(_number: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
