"""Tables and partitions come, go and lose their keys while applications write and a worker runs:
what is claimed to be complete is, and everything else is told.

At moments when nobody writes for an instant, the source's rows and the log's position are written
down. Afterwards each state that the history gives for such a moment must be what was there; what
it refuses must have a reason that was seen. Nothing may be given that differs.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from bemi.capture import watch
from bemi.config import Settings
from bemi.errors import UnknownStateError
from bemi.history.state import state
from bemi.lsn import Lsn
from tests.conftest import MakeDatabase
from tests.integration.facts.running import Running
from tests.support.tracking import position as checkpoint
from tests.support.tracking import track
from tests.support.waiting import until

ROUNDS: Final = 8
WRITERS: Final = 3

TABLES: Final = """
create schema app;
create table app.plain (id int primary key, v text);
create table app.keyless (id int, v text);
alter table app.keyless replica identity full;
create table app.parted (id int, k int, v text, primary key (id, k)) partition by list (k);
create table app.parted_0 partition of app.parted for values in (0);
create table app.parted_1 partition of app.parted for values in (1);
"""


@dataclass
class Moment:
    position: Lsn
    rows: dict[str, Counter[str]]


@dataclass
class World:
    """What writers may write to, and a gate that they pass before each transaction."""

    url: str
    seed: int
    tables: list[str] = field(default_factory=lambda: ["plain", "keyless", "parted"])
    gate: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)
    open: dict[int, threading.Lock] = field(default_factory=dict)
    committed: int = 0
    failure: BaseException | None = None

    def write(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        turn = self.open[number]
        try:
            with psycopg.connect(self.url, autocommit=True) as conn:
                while not self.stopped.is_set():
                    with self.gate:
                        turn.acquire()
                    try:
                        self._transaction(conn, rng)
                    finally:
                        turn.release()
                    self.stopped.wait(0.002)
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it again
            self.failure = error

    def _transaction(self, conn: psycopg.Connection[Any], rng: random.Random) -> None:
        try:
            with conn.transaction():
                for _ in range(rng.randint(1, 4)):
                    self._statement(conn, rng)
                    if rng.random() < 0.1:
                        self.stopped.wait(0.05)
            self.committed += 1
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            pass  # it was dropped, or has another shape
        except (
            psycopg.errors.UniqueViolation,
            psycopg.errors.CheckViolation,
            psycopg.errors.DeadlockDetected,
            psycopg.errors.ObjectNotInPrerequisiteState,
        ):
            pass

    def _statement(self, conn: psycopg.Connection[Any], rng: random.Random) -> None:
        name = rng.choice(self.tables)
        table = sql.Identifier("app", name)
        key, value = rng.randrange(60), f"v{rng.randrange(1000)}"
        kind = rng.random()
        if kind < 0.5 and name == "parted":
            statement = "insert into {} (id, k, v) values (%s, (%s::int %% 3) / 2, %s)"
            conn.execute(sql.SQL(statement).format(table), [key, key, value])
        elif kind < 0.5:
            conn.execute(
                sql.SQL("insert into {} (id, v) values (%s, %s)").format(table), [key, value]
            )
        elif kind < 0.75:
            conn.execute(sql.SQL("update {} set v = %s where id = %s").format(table), [value, key])
        elif kind < 0.99:
            conn.execute(sql.SQL("delete from {} where id = %s").format(table), [key])
        else:
            conn.execute(sql.SQL("truncate {}").format(table))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Nobody is in a transaction."""
        with self.gate:
            for turn in self.open.values():
                turn.acquire()
            try:
                yield
            finally:
                for turn in self.open.values():
                    turn.release()


@contextmanager
def writing(world: World) -> Iterator[None]:
    world.open = {number: threading.Lock() for number in range(WRITERS)}
    threads = [threading.Thread(target=world.write, args=[n], daemon=True) for n in world.open]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        world.stopped.set()
        for thread in threads:
            thread.join()
    if world.failure is not None:
        raise world.failure


def look(conn: psycopg.Connection[Any]) -> Moment:
    """All tables of the schema as they are, and where the log is: while nobody writes."""
    names = [
        row[0]
        for row in conn.execute(
            "select relname from pg_class where relnamespace = 'app'::regnamespace"
            " and relkind in ('r', 'p') order by 1"
        )
    ]
    rows = {}
    for name in names:
        cursor = conn.execute(
            sql.SQL("select to_jsonb(t) from {} t").format(sql.Identifier("app", name))
        )
        rows[f"app.{name}"] = Counter(json.dumps(row[0], sort_keys=True) for row in cursor)
    row = conn.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    # Something behind it, so that no look of the worker's can be at the very same place.
    conn.execute("select pg_logical_emit_message(true, 'test', '')")
    return Moment(Lsn.parse(row[0]), rows)


def known(settings: Settings, table: str, moment: Moment) -> Counter[str] | str:
    """The rows that the history gives, or why it does not."""
    with psycopg.connect(settings.destination_url, autocommit=True) as conn:
        try:
            return Counter(
                json.dumps(json.loads(bytes(row.image)), sort_keys=True)
                for row in state(conn, "bemi", settings.source, table, moment.position)
            )
        except UnknownStateError as error:
            return str(error)


@pytest.mark.timeout(900)
def test_tables_come_and_go_while_applications_write(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(watch, "_TABLES_INTERVAL", 0.3)
    settings = make(make_database)
    rng = random.Random(seed)
    moments: list[Moment] = []
    world = World(settings.source_url, seed)

    def rounds(conn: psycopg.Connection[Any], numbers: range) -> None:
        with Running(settings) as worker:
            for number in numbers:
                alter(conn, world, rng, number)
                enough(world, 30)
                with world.quiet():
                    moments.append(look(conn))
                seen(settings, conn)
                with world.quiet():
                    moments.append(look(conn))
            assert worker.error is None

    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        with writing(world):
            rounds(conn, range(3))
            enough(world, 20)  # while no worker runs
            rounds(conn, range(3, ROUNDS))
        moments.append(look(conn))
        with Running(settings) as worker:
            end = int(moments[-1].position)
            until(lambda: checkpoint(settings) > end, 180, "all is captured")
        assert worker.error is None
    told: Counter[str] = Counter()
    given = 0
    for moment in moments:
        for table, rows in moment.rows.items():
            found = known(settings, table, moment)
            if isinstance(found, str):
                told[reason(found)] += 1
                continue
            given += 1
            assert found == rows, f"{table} at {moment.position}: {found - rows} {rows - found}"
    print(f"{given} states given, all equal; told: {dict(told)}; {world.committed} transactions")
    assert "unexplained" not in told, told
    assert all(not isinstance(known(settings, "app.plain", moment), str) for moment in moments), (
        "a table that nobody altered is known all along"
    )
    assert given > len(moments)


def make(make_database: MakeDatabase) -> Settings:
    source_url, destination_url = make_database(), make_database()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(TABLES)
    return track(source_url, destination_url, schemas=["app"])


def enough(world: World, more: int) -> None:
    """Wait until so many more transactions are committed."""
    target = world.committed + more
    until(lambda: world.committed >= target or world.failure is not None, 180, "the writers go on")


def alter(conn: psycopg.Connection[Any], world: World, rng: random.Random, number: int) -> None:
    """One thing that operators do, while the writers write."""
    match number % 8:
        case 0:
            conn.execute("create table app.made (id int primary key, v text)")
            world.tables.append("made")
        case 1:
            conn.execute("create table app.parted_2 partition of app.parted default")
        case 2:
            conn.execute("create table app.late (id int, k int, v text, primary key (id, k))")
            conn.execute("insert into app.late select g, 7, 'old' from generate_series(100, 120) g")
            conn.execute("drop table app.parted_2")
            conn.execute("alter table app.parted attach partition app.late for values in (7)")
        case 3:
            conn.execute("alter table app.parted detach partition app.late")
        case 4:
            conn.execute("alter table app.made drop constraint made_pkey, replica identity full")
        case 5:
            conn.execute("alter publication bemi drop table app.keyless")
            enough(world, rng.randint(1, 10))
            conn.execute("alter publication bemi add table app.keyless")
        case 6:
            conn.execute("alter table app.made rename to renamed")
            world.tables[world.tables.index("made")] = "renamed"
        case _:
            world.tables.remove("renamed")
            with world.quiet():
                conn.execute("drop table app.renamed")


def seen(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    """Wait until the worker has looked at what was altered."""
    row = conn.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None
    with psycopg.connect(settings.destination_url, autocommit=True) as destination:
        until(
            lambda: destination.execute(
                "select 1 from bemi.sources where looked_position > %s", [row[0]]
            ).fetchone(),
            180,
            "the worker has looked",
        )


def reason(words: str) -> str:
    for known_reason in (
        "untracked",
        "no baseline",
        "was not tracked then",
        "key_changed",
        "made, renamed, attached, detached",
        "is not in the history",
        "under that name",
        "table_dropped",
    ):
        if known_reason in words:
            return known_reason
    print(words)
    return "unexplained"
