"""`bemi recover`: after a loss, the history ends equal to the source, what differed `inferred`."""

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from bemi.capture import recovery, worker
from bemi.capture.recovery import diagnose
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import GapError
from bemi.store.baselines import Interval
from tests.conftest import SETTINGS
from tests.integration.conftest import Track
from tests.support import databases
from tests.support.baselines import (
    assert_same,
    assert_state,
    history,
    present,
    spelled,
    stop_after,
    take,
)
from tests.support.tracking import environment, track
from tests.support.waiting import until

TABLES: Final = (
    "create table a (id int primary key, v text, n int)",
    "create table b (x int, y text, v int, primary key (y, x))",
    "alter table b replica identity full",
    "create table p (id int, r text, v int, primary key (id, r)) partition by list (r)",
    "create table p_n partition of p for values in ('n')",
    "create table p_s partition of p for values in ('s')",
    "insert into a select g, 'v' || g, g from generate_series(1, 60) g",
    "insert into b select g, 'y' || g % 5, g from generate_series(1, 60) g",
    (
        "insert into p select g, case when g % 2 = 0 then 'n' else 's' end, g"
        " from generate_series(1, 60) g"
    ),
)
LEAVES: Final = ("public.a", "public.b", "public.p_n", "public.p_s")


def bemi(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bemi", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**environment(settings), "COLUMNS": "120"},
        timeout=100,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def lose_slot(settings: Settings) -> None:
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        databases.drop_slot(conn, settings.slot)


def do_something_unseen(conn: psycopg.Connection[Any], seed: int) -> None:
    """While nobody looks: rows come, go, change, and move to other keys and partitions."""
    chance = random.Random(seed)
    for _ in range(chance.randint(0, 25)):
        one = chance.randint(1, 70)
        statement = chance.choice(
            [
                "update a set n = n + 1 where id = {one}",
                "update a set v = null where id = {one}",
                "update a set id = id + 1000 where id = {one}",
                "delete from a where id = {one}",
                "insert into a values ({one}, 'back', 0) on conflict do nothing",
                "insert into a values ({one} + 5000, 'new', 0) on conflict do nothing",
                "update b set v = -v where x = {one}",
                "delete from b where x = {one}",
                "update b set y = 'z' where x = {one}",
                "update p set r = case r when 'n' then 's' else 'n' end where id = {one}",
                "update p set v = v + 1 where id = {one}",
                "delete from p where id = {one}",
            ]
        )
        conn.execute(statement.format(one=one).encode())
    if chance.random() < 0.1:
        conn.execute("truncate b")


def rows_by_key(conn: psycopg.Connection[Any]) -> dict[tuple[int, str], str]:
    """Of all tables, each row by its relation and the text of its key."""
    found: dict[tuple[int, str], str] = {}
    for leaf in LEAVES:
        oid, rows = present(conn, leaf)
        for text in rows:
            row = json.loads(text)
            if leaf == "public.a":
                key = str(row["id"])
            elif leaf == "public.b":
                key = json.dumps([row["y"], str(row["x"])], separators=(",", ":"))
            else:
                key = json.dumps([str(row["id"]), row["r"]], separators=(",", ":"))
            found[oid, key] = text
    return found


def inferred(settings: Settings) -> dict[tuple[int, str], tuple[str, str | None, str | None]]:
    """What the history infers: per row the operation, what it was and what it is."""
    found = {}
    for row in history(settings.destination_url):
        if "inferred" in (row["flags"] or ()):
            key = (int(row["relation"]), row["primary_key"])
            assert key not in found
            found[key] = (
                row["operation"],
                None if row["was"] is None else spelled(row["was"]),
                None if row["after"] is None else spelled(row["after"]),
            )
    return found


@pytest.mark.parametrize("seed", range(6))
def test_exactly_what_happened_unseen_is_inferred(tracked: Track, seed: int) -> None:
    t = tracked(*TABLES)
    take(t.settings)
    do_something_unseen(t.source, 1000 + seed)  # seen, to begin with
    t.catch_up()
    before = rows_by_key(t.source)
    lose_slot(t.settings)
    do_something_unseen(t.source, seed)
    after = rows_by_key(t.source)

    code, out, err = bemi(t.settings, "recover", "--json")

    assert code == 0, err
    expected: dict[tuple[int, str], tuple[str, str | None, str | None]] = {}
    for key in before.keys() | after.keys():
        was, now = before.get(key), after.get(key)
        if was != now:
            operation = "CREATE" if was is None else "DELETE" if now is None else "UPDATE"
            expected[key] = (operation, was, now)
    assert inferred(t.settings) == expected
    assert_same(t.settings, *LEAVES)
    t.source.execute("update a set n = 77 where id = 5 or id = 5001")
    t.catch_up()
    assert_same(t.settings, *LEAVES)
    assert_state(t.settings, "public.a", "public.b", "public.p")
    told = json.loads(out)
    assert len(told["wrong"]) == 1
    assert "is gone" in told["wrong"][0]
    counts = Counter[str]()
    for table in told["tables"]:
        counts += Counter({kind: table[kind] for kind in ("created", "updated", "deleted")})
    operations = Counter(operation for operation, _, _ in expected.values())
    assert (counts["created"], counts["updated"], counts["deleted"]) == (
        operations["CREATE"],
        operations["UPDATE"],
        operations["DELETE"],
    )


def test_it_refuses_when_nothing_is_wrong(tracked: Track) -> None:
    t = tracked(*TABLES)
    assert bemi(t.settings, "recover") == (
        1,
        "nothing is wrong: the slot goes on where the history ends\n",
        "",
    )
    assert history(t.settings.destination_url) == []


def test_a_gap_is_recorded_and_accepted_and_the_report_names_the_tables(tracked: Track) -> None:
    t = tracked(*TABLES)
    take(t.settings)
    lose_slot(t.settings)
    t.source.execute("delete from a where id = 1")
    code, out, err = bemi(t.settings, "recover")
    assert (code, err) == (0, "")
    assert 'the replication slot "' in out
    assert "public.a: 59 rows; since it was last seen 0 created, 0 updated, 1 deleted" in out
    (gap,) = t.query("select * from bemi.gaps where relation is null")
    assert gap["accepted_at"] is not None
    assert bemi(t.settings, "status")[0] == 0
    assert bemi(t.settings, "recover")[0] == 1


def test_a_publication_that_was_dropped(tracked: Track) -> None:
    t = tracked(*TABLES)
    take(t.settings)
    t.source.execute("drop publication bemi")
    t.source.execute("update a set n = -1 where id = 1")
    code, out, err = bemi(t.settings, "recover")
    assert code == 0, err
    assert 'the publication "bemi" is gone' in out
    assert [operation for operation, _, _ in inferred(t.settings).values()] == ["UPDATE"]
    t.source.execute("update a set n = -2 where id = 2")
    t.catch_up()
    assert_same(t.settings, *LEAVES)


def test_a_gap_that_a_worker_found(tracked: Track) -> None:
    t = tracked(*TABLES)
    take(t.settings)
    lose_slot(t.settings)
    t.source.execute("delete from b where x = 3")
    assert bemi(t.settings, "init")[0] == 0
    with pytest.raises(GapError):
        worker.run(t.settings, stop=threading.Event(), until_caught_up=True)
    assert diagnose(t.settings).gap is not None
    code, out, _ = bemi(t.settings, "recover")
    assert code == 0
    assert "the slot begins at" in out
    assert t.query("select from bemi.gaps where accepted_at is null") == []
    assert_same(t.settings, *LEAVES)


def test_what_an_accepted_gap_left_unknown(tracked: Track) -> None:
    """Somebody went on without it: the tables' states are unknown until it is run."""
    t = tracked(*TABLES)
    take(t.settings)
    lose_slot(t.settings)
    t.source.execute("delete from b where x = 3")
    assert bemi(t.settings, "init")[0] == 0
    t.catch_up(accept_gap=True)
    assert set(diagnose(t.settings).unknown) == {*LEAVES}
    assert bemi(t.settings, "recover")[0] == 0
    assert len(inferred(t.settings)) == 1
    assert_same(t.settings, *LEAVES)


def test_another_epoch(tracked: Track) -> None:
    """As after a failover: positions can't be compared with those of before."""
    t = tracked(*TABLES)
    take(t.settings)
    t.query("update bemi.epochs set timeline = 7 returning epoch")
    lose_slot(t.settings)
    t.source.execute("update b set v = 1000 where x = 3")
    assert bemi(t.settings, "recover")[0] == 0
    (gap,) = t.query("select * from bemi.gaps")
    assert gap["cause"] == "epoch_changed"
    assert_same(t.settings, *LEAVES)
    assert len(t.query("select from bemi.epochs")) == 2
    assert [operation for operation, _, _ in inferred(t.settings).values()] == ["UPDATE"]


def test_it_goes_on_where_it_was(tracked: Track) -> None:
    t = tracked(*TABLES)
    take(t.settings)
    lose_slot(t.settings)
    t.source.execute("delete from a where id > 50")
    t.source.execute("update a set n = 0 where id <= 3")
    recovery.make_anew(t.settings, new_slot=False, report=lambda _: None)
    recorder, stop = stop_after(20)
    take(
        t.settings,
        chosen=recovery.is_unknown,
        rows=10,
        recorder=recorder,
        stop=stop,
        before=recovery.take_over,
    )
    done = len(history(t.settings.destination_url))
    assert diagnose(t.settings).unknown
    code, out, _ = bemi(t.settings, "recover")
    assert code == 0
    assert "public.a: goes on behind 20 rows" in out
    assert len(inferred(t.settings)) == 13
    rows = Counter(
        row["primary_key"]
        for row in history(t.settings.destination_url)[done - 20 :]
        if row["table"] == "a"
    )
    assert max(rows.values()) == 1
    assert_same(t.settings, *LEAVES)


def test_a_table_that_became_empty_and_one_without_a_key(tracked: Track) -> None:
    t = tracked(
        *TABLES[:1],
        "insert into a values (1, 'x', 1)",
        "create table notes (n int)",
        "insert into notes values (1), (2)",
        "create table late (id int primary key deferrable, v text)",
        "insert into late values (1, 'a'), (2, 'b'), (3, 'c')",
        full=("notes", "late"),
    )
    take(t.settings)
    t.source.execute("update late set id = id + 1")
    t.catch_up()
    lose_slot(t.settings)
    t.source.execute("delete from a")
    t.source.execute("delete from notes where n = 1")
    code, out, _ = bemi(t.settings, "recover")
    assert code == 0
    assert "without a key" in out
    ((operation, was, now),) = inferred(t.settings).values()
    assert (operation, now) == ("DELETE", None)
    assert json.loads(was or "") == {"id": 1, "n": 1, "v": "x"}
    assert_same(t.settings, "public.a", "public.notes", "public.late")


@pytest.fixture
def small_wal(postgres_bin: Path | None) -> Iterator[Server]:
    """A server that keeps next to nothing for a slot that lags."""
    with Server(
        settings={**SETTINGS, "max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB"},
        bin=postgres_bin,
    ) as server:
        yield server


def test_a_slot_that_is_lost(small_wal: Server) -> None:
    source_url = small_wal.create_database("source")
    with psycopg.connect(source_url, autocommit=True) as conn:
        for statement in TABLES:
            conn.execute(statement.encode())
        settings = track(source_url, small_wal.create_database("destination"), schemas=("*",))
        take(settings)

        def lost() -> bool:
            conn.execute("update a set n = n + 1")
            conn.execute("select pg_switch_wal()")
            conn.execute("checkpoint")
            row = conn.execute("select wal_status from pg_replication_slots").fetchone()
            return row == ("lost",)

        until(lost, 60, "the slot is lost")
    code, out, err = bemi(settings, "recover")
    assert code == 0, err
    assert "is lost" in out
    assert len(inferred(settings)) == 60
    assert_same(settings, *LEAVES)


def test_what_is_unknown_is_behind_a_gap() -> None:
    def interval(**changes: Any) -> Interval:
        return Interval(**{
            "interval_id": 1, "epoch": 1, "relation": 1, "schema": "s", "table": "t",
            "partition": None, "from_position": 1, "state_position": None, "known_before": True,
            "state_before": True, "compared": False, **changes,
        })  # fmt: skip

    assert recovery.is_unknown(interval())
    assert recovery.is_unknown(interval(state_position=5)), "it was empty: what became of its rows?"
    assert not recovery.is_unknown(interval(state_position=5, compared=True))
    assert not recovery.is_unknown(interval(known_before=False))
