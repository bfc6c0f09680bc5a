"""Consumers of two sources, while everything restarts: each change once, in order.

The destination crashes, the worker is killed, connections are ended; a consumer that stores its
cursor with what it does is killed at any moment. BEMI_TEST_EVENTS is how many such events.
"""

import contextlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import pytest

import bemi
from bemi.config import Settings
from bemi.embedded import Server
from bemi.history import feed
from tests.conftest import MakeDatabase
from tests.e2e.conftest import SETTINGS
from tests.e2e.test_several_sources import write_file
from tests.support import databases, workload
from tests.support.several import FileWorker
from tests.support.tracking import ROOT, position
from tests.support.waiting import until

EVENTS = int(os.environ.get("BEMI_TEST_EVENTS", "4"))
KINDS = ("destination", "worker", "sessions", "consumer")
BETWEEN = 60
"""Changes that are given between two events, at least."""

CONSUMER = """
import sys, time, psycopg, bemi
from bemi.errors import PassingError
history, own = sys.argv[1:]

def connected(start):
    # Who starts while the destination is down is told so, and tries again, as a supervisor does.
    while True:
        try:
            return bemi.stream(history, start=start, table="app.accounts")
        except PassingError:
            time.sleep(0.1)

with psycopg.connect(own, autocommit=True) as app:
    (start,) = app.execute("select cursor from place").fetchone()
    with connected(start) as changes:
        for change in changes:
            with app.transaction():
                app.execute("insert into effect (source, id) values (%s, %s)",
                    [change.source, change.id])
                app.execute("update place set cursor = %s", [changes.cursor])
"""


class Killed:
    """A consumer in a process of its own, with a database where it stores cursor and effects."""

    def __init__(self, history: str, own: str) -> None:
        self._command = [sys.executable, "-c", CONSUMER, history, own]
        self.app = psycopg.connect(own, autocommit=True)
        self.app.execute("create table place (cursor text)")
        self.app.execute("insert into place values ('beginning')")
        self.app.execute(
            "create table effect (n int generated always as identity, source text, id uuid)"
        )
        self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self.app.close()

    def kill(self) -> None:
        self._end()
        self._process = self._start()

    def effects(self, source: str) -> list[str]:
        rows = self.app.execute("select id from effect where source = %s order by n", [source])
        return [str(row[0]) for row in rows]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


class Listening:
    """A stream in this process; `given` are the ids by source."""

    def __init__(self, url: str) -> None:
        self.given: dict[str, list[str]] = {}
        self._changes = bemi.stream(url, start="beginning")
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def count(self) -> int:
        if self._failure is not None:
            raise self._failure
        return sum(map(len, self.given.values()))

    def close(self) -> None:
        self._changes.close()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            for change in self._changes:
                self.given.setdefault(change.source, []).append(str(change.id))
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self._failure = error


@pytest.fixture
def destination(postgres_bin: Path | None) -> Iterator[Server]:
    with Server(settings=SETTINGS, bin=postgres_bin) as running:
        yield running


@pytest.mark.timeout(120 + 20 * EVENTS)
def test_each_change_once_and_in_order(
    make_database: MakeDatabase,
    destination: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    # Whatever happens, who waits is woken or connects again.
    monkeypatch.setattr(feed, "LONGEST_WAIT", 10**6)
    dice = random.Random(seed)
    url = destination.create_database("destination")
    tracked: dict[str, Settings] = {}
    for name in ("shop", "crm"):
        source = make_database(databases.unused_name(name))
        tracked[name], _ = workload.prepare(source, url, source=name)
    write_file(tmp_path, tracked)
    # Each kind once, and then any.
    events = [*dice.sample(KINDS, k=len(KINDS)), *dice.choices(KINDS, k=EVENTS)][:EVENTS]
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(FileWorker(tmp_path))
        own = make_database(databases.unused_name("consumer"))
        killed = stack.enter_context(Killed(url, own))
        listening = Listening(url)
        stack.callback(listening.close)
        with contextlib.ExitStack() as loads:
            for settings in tracked.values():
                loads.enter_context(
                    workload.Workload(settings.source_url, seed=seed, clients=2, rate=100)
                )
            for event in events:
                before = listening.count()
                until(
                    lambda before=before: listening.count() > before + BETWEEN,  # type: ignore[misc]
                    60,
                    "changes are given",
                )
                if event == "destination":
                    destination.restart(dice.choice(["immediate", "fast"]))
                elif event == "worker":
                    worker.kill()
                    worker.start()
                elif event == "sessions":
                    end_sessions(url)
                else:
                    killed.kill()
        for settings in tracked.values():
            until_captured(settings)
        for name in tracked:
            expected = stored(url, name)
            wanted = stored(url, name, table="accounts")
            until(lambda: len(listening.given[name]) >= len(expected), 60, "all is given")  # noqa: B023
            until(lambda: len(killed.effects(name)) >= len(wanted), 60, "all has its effect")  # noqa: B023
            assert listening.given[name] == expected, events
            assert killed.effects(name) == wanted, events
        listening.count()
    print(f"{listening.count()} changes, {', '.join(events)}")


def end_sessions(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )


def until_captured(settings: Settings) -> None:
    """Until the history holds what is committed by now."""
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        row = conn.execute(
            "select pg_logical_emit_message(true, '_bemi_mark', '') - '0/0'::pg_lsn"
        ).fetchone()
    assert row is not None
    until(lambda: position(settings) > row[0], 60, "all is captured")


def stored(url: str, source: str, table: str | None = None) -> list[str]:
    with psycopg.connect(url, autocommit=True) as conn:
        rows = conn.execute(
            "select id from bemi.changes where source = %(source)s"
            ' and (%(table)s::text is null or "table" = %(table)s)'
            " order by epoch, commit_position, ordinal",
            {"source": source, "table": table},
        )
        return [str(row[0]) for row in rows]
