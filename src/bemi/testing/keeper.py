"""The process beside the tests: sets a database up, captures it, and takes away every trace.

It ends with its standard input, so with the tests however these ended, and does then what `bemi
teardown --history` does. What a killed one left behind, the next one takes away first. One line
of JSON on standard input says what to do; lines of JSON on standard output say how it goes.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from bemi import config
from bemi.capture import slot, snapshot, worker
from bemi.capture.results import Result
from bemi.capture.setup import InitResult, init
from bemi.capture.teardown import teardown
from bemi.connections import connect, explained
from bemi.errors import BemiError, SetupError
from bemi.settings import Settings, database_name, slot_name
from bemi.store import sources

_LOCK_TIMEOUT: Final = "3s"
_SLOT_WAIT: Final = 20.0
"""Seconds to wait for open transactions, of this test run or others, before saying so."""
_GONE: Final = 15.0
"""Seconds that the walsender of a keeper which was killed may take to end."""
_PAUSE: Final = 0.1

Asked: TypeAlias = "queue.SimpleQueue[str | None]"
"""What the tests have asked for; None is the end."""


def settings_of(order: Mapping[str, Any]) -> Settings:
    """Names that no worker has which captures the same database in earnest.

    The application's file of settings, where one is named, gives which tables, and the rules.
    """
    source_url = order["url"]
    name = slot_name(f"pytest_{database_name(source_url, key='bemi_url')}")
    environ = {"BEMI_CONFIG": order["config"] or os.devnull}
    if order["config"]:
        environ["BEMI_HASH_KEY"] = os.environ.get("BEMI_HASH_KEY") or os.urandom(16).hex()
    return config.load(
        {
            "source_url": source_url,
            "destination_url": order["history_url"] or source_url,
            "schema": name,
            "slot": name,
            "publication": name,
            "slot_wait": _SLOT_WAIT,
            "new_tables": "track",
        },
        environ,
        Path(order["config"]) if order["config"] else None,
    )


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the tests
    asked: Asked = queue.SimpleQueue()
    stop = threading.Event()

    def end(_number: int, _frame: object) -> None:
        stop.set()
        asked.put(None)

    signal.signal(signal.SIGTERM, end)
    # Not sys.stdin, whose buffer might hold back what the listening thread waits for.
    order = json.loads(_line(0))
    threading.Thread(target=_listen, args=[asked, stop], daemon=True).start()
    try:
        settings = settings_of(order)
        with _alone(settings):
            _remove(settings)  # what an earlier one left
            try:
                _keep(settings, asked, stop, baseline=order["baseline"])
            finally:
                _remove(settings)
    except BemiError as error:
        _say(error=str(error), fix=error.fix)
        return 1
    return 0


def _keep(settings: Settings, asked: Asked, stop: threading.Event, *, baseline: bool) -> None:
    """Each time that it is asked, take up the tables that are new."""
    made = _init(settings)
    failed: list[BaseException] = []

    def capture() -> None:
        try:
            worker.run(settings, stop=stop, takes_baselines=False)
        except BaseException as error:  # noqa: BLE001 - told to the tests, which can't go on
            failed.append(error)
            _say(error=str(error), fix=getattr(error, "fix", None))

    capturing = threading.Thread(target=capture, name="bemi-worker")
    capturing.start()
    try:
        while True:
            if baseline:
                _take_baselines(settings, stop, failed)
            if failed or stop.is_set():
                break
            _say(ready=_told(settings, made))
            if asked.get() is None:
                break
            made = _init(settings)
    finally:
        stop.set()
        capturing.join()


def _init(settings: Settings) -> InitResult:
    return init(settings, full=_full(settings), report=lambda line: _say(waiting=line))


def _full(settings: Settings) -> list[str]:
    """Old rows whole, so that all of a change can be taken back; none where there is no table."""
    with connect(settings.source_url, what="source") as conn, explained("source"):
        found = conn.execute(
            "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_'"
            " and n.nspname <> 'information_schema')"
        ).fetchone()
    return ["*.*"] if found is not None and found[0] else []


def _told(settings: Settings, made: InitResult) -> dict[str, Any]:
    return {
        "source": settings.source,
        "name": settings.slot,
        "untracked": [[state.qualified, state.reason or ""] for state in made.untracked],
        "not_full": [list(each) for each in made.not_full],
        "unmatched": list(made.unmatched),
        "rules": msgspec.to_builtins(settings.rules),
    }


class _Silent:
    def table(self, name: str, done: int, estimate: int) -> None:
        pass

    def rows(self, done: int) -> None:
        pass

    def waiting(self, reason: str) -> None:
        _say(waiting=reason)

    def finished(self, result: Result) -> None:
        if result.error is not None:
            _say(waiting=f"{result.table} has no baseline: {result.error}")


def _take_baselines(settings: Settings, stop: threading.Event, failed: list[BaseException]) -> None:
    """Of all tables that have rows, so that a TRUNCATE can be taken back, too."""

    def captures() -> None:
        if failed:
            raise SetupError("the worker has ended")

    with contextlib.suppress(SetupError):
        snapshot.Snapshot(
            settings,
            chosen=lambda interval: interval.lacks_baseline,
            reports=_Silent(),
            captures=captures,
            stop=stop,
        ).run()


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Two test runs in one database would take each other's changes for their own."""
    with contextlib.ExitStack() as stack:
        urls = dict.fromkeys([settings.source_url, settings.destination_url])
        for url, what in zip(urls, ("source", "destination"), strict=False):
            conn = stack.enter_context(connect(url, what=what))  # type: ignore[arg-type]
            deadline = time.monotonic() + _GONE
            while not _locked(conn, settings.slot):
                if time.monotonic() > deadline:
                    raise SetupError(
                        f'another test run uses the database "{conn.info.dbname}"',
                        fix="give each run, and each worker of pytest-xdist, a database of its"
                        " own: the fixture bemi_url may depend on worker_id",
                    )
                time.sleep(_PAUSE)
        yield


def _locked(conn: psycopg.Connection[Any], name: str) -> bool:
    row = conn.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [name]).fetchone()
    return row is not None and bool(row[0])


def _remove(settings: Settings) -> None:
    """Raises `BemiError` where something stays behind, which it names."""
    if not _is_there(settings):
        return
    deadline = time.monotonic() + _GONE
    while True:
        with connect(settings.source_url, what="source") as conn:
            found = slot.read(conn, settings.slot)
        if found is None or found.active_pid is None or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    result = teardown(settings, history=True, report=lambda _line: None)
    with connect(settings.source_url, what="source") as conn:
        conn.execute("select set_config('lock_timeout', %s, false)", [_LOCK_TIMEOUT])
        for statement in result.set_back:
            # A transaction that is still open may hold the table; it keeps the identity then,
            # which does it no harm.
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                conn.execute(sql.SQL(statement))


def _is_there(settings: Settings) -> bool:
    with (
        connect(settings.source_url, what="source") as conn,
        connect(settings.destination_url, what="destination") as destination,
        explained("source"),
    ):
        row = conn.execute(
            "select exists (select from pg_replication_slots where slot_name = %(name)s)"
            " or exists (select from pg_publication where pubname = %(name)s)",
            {"name": settings.slot},
        ).fetchone()
        stored = sources.read(destination, settings.schema, settings.source)
    return stored is not None or (row is not None and bool(row[0]))


def _listen(asked: Asked, stop: threading.Event) -> None:
    while read := os.read(0, 4096):
        for _ in read.splitlines():
            asked.put("look")
    stop.set()
    asked.put(None)


def _line(descriptor: int) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        if not (piece := os.read(descriptor, 4096)):
            break
        read += piece
    return read


def _say(**said: object) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
