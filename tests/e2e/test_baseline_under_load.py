"""Baselines while everything goes on: the history's state equals the source, for many seeds.

Clients insert, update, delete, change keys, move rows between partitions and truncate, while
`bemi snapshot` and the worker are killed again and again. Some commits become visible late: they
wait for a standby that never comes, until they are released. BEMI_TEST_SEEDS says how many seeds
are tried (from BEMI_TEST_SEED on), which decide what the clients do and who is killed when.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
import pytest

from bemi.config import Settings
from bemi.embedded import Server
from tests.conftest import SETTINGS, MakeDatabase
from tests.support import databases
from tests.support.baselines import assert_same, assert_state
from tests.support.tracking import environment, track
from tests.support.workers import Worker, catch_up

SCHEMA: Final = """
create schema app;
create table app.people (id bigint primary key, name text, n int, note text);
alter table app.people alter note set storage external;
create table app.items (account int, line text, n int, primary key (line, account));
alter table app.items replica identity full;
create table app.notes (n int, word text);
alter table app.notes replica identity full;
create table app.events (id int, region text, n int, primary key (id, region))
    partition by list (region);
create table app.events_north partition of app.events for values in ('north');
create table app.events_south partition of app.events for values in ('south');
create table app.coded (code text not null, n int, note text);
create unique index coded_code on app.coded (code);
alter table app.coded replica identity using index coded_code;
alter table app.coded alter note set storage external;
insert into app.people select g, 'name ' || g, 0, repeat('long ', 500)
    from generate_series(1, 1500) g;
insert into app.items select g % 50, 'line ' || g, 0 from generate_series(1, 1200) g;
insert into app.notes select g % 20, 'w' || g % 3 from generate_series(1, 800) g;
insert into app.events select g, case when g % 2 = 0 then 'north' else 'south' end, 0
    from generate_series(1, 800) g;
insert into app.coded select 'c' || g, 0, repeat('x', 3000) from generate_series(1, 600) g;
create sequence app.fresh start 100000;
"""

LEAVES: Final = (
    "app.people",
    "app.items",
    "app.notes",
    "app.events_north",
    "app.events_south",
    "app.coded",
)

TABLES: Final = ("app.people", "app.items", "app.notes", "app.events", "app.coded")

LONGEST: Final = 5.0
"""Seconds that no transaction of a baseline on the source may take."""

STATEMENTS: Final = (
    (6, "update app.people set n = n + 1 where id = {person}"),
    (3, "update app.people set note = repeat('new ', 700) || {n} where id = {person}"),
    (3, "update app.people set id = nextval('app.fresh') where id = {person}"),
    (2, "update app.people set id = -id where id between {person} and {person} + 3"),
    (4, "delete from app.people where id = {person}"),
    (4, "insert into app.people values (nextval('app.fresh'), 'new', {n}, repeat('n ', 2000))"),
    (2, ("insert into app.people values ({person}, 'again', 1, 'short') on conflict (id)"
        " do update set name = people.name || '.'")),
    (4, "update app.items set n = n + 1 where account = {small}"),
    (2, ("update app.items set line = 'line ' || {n} where account = {small} and line < 'line 3'"
        " and not exists (select from app.items i where i.line = 'line ' || {n})")),
    (2, "delete from app.items where account = {small} and n % 3 = 1"),
    (2, "insert into app.items values ({small}, 'line ' || nextval('app.fresh'), 0)"),
    (3, "update app.notes set word = word || '.' where n = {small} and length(word) < 6"),
    (2, "insert into app.notes values ({small}, 'w'), ({small}, 'w')"),
    (2, ("delete from app.notes where ctid ="
        " (select ctid from app.notes where n = {small} limit 1)")),
    (4, "update app.events set n = n + 1 where id = {event}"),
    (3, ("update app.events set region = case region when 'north' then 'south' else 'north' end"
        " where id = {event} and not exists (select from app.events e where e.id = {event}"
        " group by id having count(*) > 1)")),
    (2, "insert into app.events values ({event}, 'north', 1) on conflict do nothing"),
    (2, "delete from app.events where id = {event}"),
    (4, "update app.coded set n = n + 1 where code = 'c' || {event}"),
    (2, "update app.coded set code = code || '-' where code = 'c' || {event}"),
    (2, "delete from app.coded where code = 'c' || {event}"),
    (0.15, "truncate app.notes"),
    (0.1, "truncate app.events"),
    (0.1, "truncate app.people"),
    (2, ("insert into app.people select nextval('app.fresh'), 'many', g, 'x'"
        " from generate_series(1, 40) g")),
)  # fmt: skip


@pytest.fixture(scope="module")
def server(postgres_bin: Path | None) -> Iterator[Server]:
    """One on which a transaction commits in the log before anybody sees it, if it asks for that."""
    settings = {
        **SETTINGS,
        "synchronous_standby_names": "nobody",
        "synchronous_commit": "local",
        "deadlock_timeout": "100ms",
    }
    with Server(settings=settings, bin=postgres_bin) as running:
        yield running


class Clients:
    """Sessions that change rows while it is entered."""

    def __init__(self, url: str, seed: int, *, number: int = 3) -> None:
        self._url = url
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=[random.Random(f"{seed}/{each}")], daemon=True)
            for each in range(number)
        ]
        self._threads.append(threading.Thread(target=self._release, daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _run(self, chance: random.Random) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as conn:
                while not self._stop.wait(0.005):
                    self._transaction(conn, chance)
        except Exception as error:  # noqa: BLE001  # the test's thread raises it again
            self._failures.append(error)

    def _transaction(self, conn: psycopg.Connection[Any], chance: random.Random) -> None:
        try:
            with conn.transaction():
                if chance.random() < 0.3:
                    conn.execute("set local synchronous_commit to on")
                for _ in range(chance.choice([1, 1, 1, 2, 4])):
                    conn.execute(self._statement(chance))
                if chance.random() < 0.05:
                    self._stop.wait(chance.random() / 2)  # open while chunks are read
                if chance.random() < 0.08:
                    raise psycopg.Rollback
        except (
            psycopg.errors.DeadlockDetected,
            psycopg.errors.UniqueViolation,
            psycopg.errors.LockNotAvailable,
            psycopg.errors.QueryCanceled,
            psycopg.errors.SerializationFailure,  # a row moved to another partition meanwhile
        ):
            pass

    def _release(self) -> None:
        """Make commits visible that were held back: a few at a time, after some milliseconds."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            while not self._stop.wait(0.03) or any(t.is_alive() for t in self._threads[:-1]):
                conn.execute(
                    "select pg_cancel_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and wait_event = 'SyncRep'"
                )

    def _statement(self, chance: random.Random) -> bytes:
        (statement,) = chance.choices(
            [each for _, each in STATEMENTS], [weight for weight, _ in STATEMENTS]
        )
        return statement.format(
            person=chance.choice([chance.randint(1, 1500), chance.randint(1, 20)]),
            small=chance.randint(1, 49),
            event=chance.randint(1, 800),
            n=chance.randint(1, 10**9),
        ).encode()


class Longest:
    """Watches how long the transactions of Bemi's ordinary sessions on the source last."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seconds = 0.0
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with psycopg.connect(self._url, autocommit=True, application_name="watch") as conn:
            while not self._stop.wait(0.02):
                row = conn.execute(
                    "select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)"
                    " from pg_stat_activity where datname = current_database()"
                    " and backend_type = 'client backend' and application_name = 'bemi'"
                ).fetchone()
                assert row is not None
                self.seconds = max(self.seconds, float(row[0]))
                self.looks += 1


class SnapshotProcess:
    """`bemi snapshot`, again and again."""

    def __init__(self, settings: Settings, folder: Path, *arguments: str) -> None:
        self._settings = settings
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "snapshot.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bemi", *self._arguments],
                env=environment(self._settings),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ended(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def seeds() -> list[int]:
    first = int(os.environ.get("BEMI_TEST_SEED", "1"))
    return list(range(first, first + int(os.environ.get("BEMI_TEST_SEEDS", "3"))))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", seeds())
def test_the_state_equals_the_source_whoever_is_killed(
    make_database: MakeDatabase, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    url = make_database(databases.unused_name("source"))
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SCHEMA.encode())
    settings = track(url, make_database(databases.unused_name("destination")))
    worker = Worker(settings, tmp_path)
    snapshot = SnapshotProcess(settings, tmp_path, "snapshot", "--chunk-rows", "100")
    kills = chance.randint(2, 5)
    try:
        with Clients(url, seed), Longest(url) as longest:
            if chance.random() < 0.7:
                worker.start()
            snapshot.start()
            while snapshot.ended() is None or kills:
                if kills:
                    time.sleep(chance.uniform(0.3, 2.5))  # a moment to be killed at, no wait
                    kills -= 1
                    whom = chance.choice(["worker", "snapshot", "snapshot", "both"])
                    if whom != "worker":
                        snapshot.kill()
                    if whom != "snapshot" and worker.running:
                        worker.kill()
                    if not worker.running and chance.random() < 0.7:
                        worker = Worker(settings, tmp_path).start()
                if snapshot.ended() not in (None, 0):
                    assert snapshot.ended() == -9, snapshot.log.read_text()
                    snapshot.start()
                if not kills:
                    snapshot_ended(snapshot)
        assert snapshot.ended() == 0, snapshot.log.read_text()
        assert longest.looks > 10
        assert longest.seconds < LONGEST
        worker.kill()
        catch_up(settings, tmp_path)
    finally:
        snapshot.kill()
        worker.kill()
    assert_same(settings, *LEAVES)
    assert_state(settings, *TABLES)
    print(f"seed {seed}: longest transaction {longest.seconds:.2f} s")


def snapshot_ended(snapshot: SnapshotProcess) -> None:
    """Wait until it ends by itself."""
    assert snapshot._process is not None
    try:
        snapshot._process.wait(240)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the baseline did not end:\n{snapshot.log.read_text()}") from None
