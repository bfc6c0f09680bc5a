"""A source in which nothing happens: no false gaps, and no WAL kept or made for nothing.

BEMI_TEST_IDLE_SECONDS makes the idle stretch longer.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bemi.capture import sink, watch, worker
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import UnknownStateError
from bemi.history import moments
from tests.conftest import MakeDatabase
from tests.e2e.conftest import SETTINGS
from tests.support import workload
from tests.support.oracle import SlotMonitor
from tests.support.tracking import confirmed, flushed, position
from tests.support.waiting import until
from tests.support.workers import Worker

RESTARTS = 20
SECONDS = float(os.environ.get("BEMI_TEST_IDLE_SECONDS", "8"))


@pytest.mark.timeout(180)
def test_an_idle_worker_restarted_often_reports_no_gap(
    source_url: str, destination_url: str, tmp_path: Path
) -> None:
    settings, oracle = workload.prepare(source_url, destination_url)
    with SlotMonitor(settings) as monitor:
        for _ in range(RESTARTS):
            assert Worker(settings, tmp_path).start().ready().stop() == 0
    assert gaps(settings) == 0
    assert monitor.ahead == 0
    assert oracle.compare(settings).faults == {}


@pytest.mark.timeout(180)
def test_restarts_after_the_slot_moved_on_report_no_gap(
    source_url: str, destination_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker acknowledges a keepalive's position, which no row of the history has."""
    monkeypatch.setattr(sink, "IDLE_INTERVAL", 0.1)
    settings, _ = workload.prepare(source_url, destination_url)
    with SlotMonitor(settings) as monitor, psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table untracked (n int)")
        for _ in range(RESTARTS):
            with capturing(settings):
                conn.execute("insert into untracked select generate_series(1, 100)")
                written = flushed(source_url)
                until(lambda: confirmed(settings) >= written, 30, "the slot moves on")  # noqa: B023
    assert gaps(settings) == 0
    assert monitor.ahead == 0
    assert len(monitor.positions) > RESTARTS / 2


@pytest.mark.timeout(180)
def test_an_idle_source_keeps_no_wal_for_its_slot(
    source_url: str, destination_url: str, make_database: MakeDatabase, tmp_path: Path
) -> None:
    """WAL of untracked tables and of other databases passes by, and the slot moves on."""
    settings, oracle = workload.prepare(source_url, destination_url)
    other = make_database()
    with Worker(settings, tmp_path).start().ready(), SlotMonitor(settings) as monitor:
        for url in (source_url, other):
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("create table untracked (n int)")
                conn.execute("insert into untracked select generate_series(1, 100000)")
            written = flushed(source_url)
            until(lambda: confirmed(settings) >= written, 60, "the slot moves on")  # noqa: B023
    assert monitor.ahead == 0
    assert oracle.compare(settings).faults == {}


@pytest.mark.timeout(120 + SECONDS)
def test_source_and_destination_on_one_server_let_each_other_rest(
    postgres_bin: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is a write, and that write is in the log that is read: it must not go on.

    The interval between idle checkpoints is shortened, so that a worker whose checkpoint asks
    for the next one would make dozens.
    """
    monkeypatch.setattr(sink, "IDLE_INTERVAL", 0.1)
    # A server of its own, since the log is everybody's; and autovacuum writes when it likes.
    with Server(settings={**SETTINGS, "autovacuum": "off"}, bin=postgres_bin) as server:
        rest(server.url())


def rest(source_url: str) -> None:
    settings, oracle = workload.prepare(source_url)
    with (
        capturing(settings),
        SlotMonitor(settings, interval=0.05) as monitor,
        psycopg.connect(source_url, autocommit=True) as conn,
    ):
        conn.execute("insert into app.notes values ('before the rest', 1)")
        written = flushed(source_url)
        until(lambda: position(settings) >= written, 30, "the last change is stored")
        monitor.positions.clear()
        before = flushed(source_url)
        answers = 0.0

        def rested() -> bool:
            """By the worker's own signs of life, in case it is this machine that rests."""
            nonlocal answers
            row = conn.execute(
                "select extract(epoch from r.reply_time - pg_postmaster_start_time())::float8 "
                "from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid "
                "where s.slot_name = %s",
                [settings.slot],
            ).fetchone()
            assert row is not None
            answers = answers or row[0]
            return bool(row[0] - answers >= SECONDS)

        until(rested, SECONDS + 60, "the worker answers for a while")
        grown = flushed(source_url) - before
        checkpoints = len(monitor.positions)
    print(f"{grown} bytes of WAL and {checkpoints} positions in {SECONDS:g} idle seconds")
    assert checkpoints <= 4 + SECONDS / 10
    assert grown < 100_000
    assert monitor.ahead == 0
    assert oracle.compare(settings).faults == {}


@pytest.mark.timeout(120)
def test_times_of_an_idle_source_are_known(
    source_url: str, destination_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed in it, and still it is known that nothing was."""
    monkeypatch.setattr(sink, "IDLE_INTERVAL", 0.1)
    monkeypatch.setattr(watch, "_TABLES_INTERVAL", 0.1)
    settings, _ = workload.prepare(source_url, destination_url)
    with (
        capturing(settings),
        psycopg.connect(source_url, autocommit=True) as conn,
        psycopg.connect(destination_url, autocommit=True) as destination,
    ):

        def known(when: datetime) -> moments.Position | None:
            with contextlib.suppress(UnknownStateError):
                return moments.resolve(destination, "bemi", settings.source, when)
            return None

        conn.execute("insert into app.notes values ('before the rest', 1)")
        written = flushed(source_url)
        first = now(conn)
        until(lambda: known(first), 60, "that time is known")
        later = now(conn)
        until(lambda: known(later), 60, "so is a later one")
        assert known(later) == known(first)
        assert position(settings) >= written
        with pytest.raises(UnknownStateError, match="captured until"):
            moments.resolve(destination, "bemi", settings.source, now(conn) + timedelta(seconds=60))
        with psycopg.connect(source_url) as writing:
            writing.execute("insert into app.notes values ('not committed yet', 1)")
            meanwhile = now(conn)
            writing.commit()
        until(lambda: known(meanwhile), 60, "and one of before a commit")
        assert known(meanwhile) == known(first)


def now(conn: psycopg.Connection[Any]) -> datetime:
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


@contextlib.contextmanager
def capturing(settings: Settings) -> Iterator[None]:
    """A worker in this process, so that a test can set its interval."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(settings, stop=stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def gaps(settings: Settings) -> int:
    with psycopg.connect(settings.destination_url) as conn:
        row = conn.execute("select count(*) from bemi.gaps").fetchone()
    assert row is not None
    return int(row[0])
