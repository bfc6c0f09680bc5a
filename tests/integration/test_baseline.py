"""The rows that were there before: stored once, consistent with the stream, whatever goes on."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bemi.capture import baseline, worker
from bemi.capture.baseline import BaselineTaker
from bemi.capture.ledger import BaselineBusyError, Ledger, RulesDifferError
from bemi.capture.look import Limits
from bemi.capture.reading import TableReader
from bemi.capture.setup import init
from bemi.capture.snapshot import begin_coverage
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import PassingError, SetupError, TableError, UnknownStateError
from bemi.history.state import state
from bemi.lsn import Lsn
from bemi.rules import Rules, Skip
from bemi.store import gaps
from tests.conftest import SETTINGS
from tests.integration.conftest import Track
from tests.support.baselines import (
    Recorder,
    assert_same,
    assert_state,
    history,
    spelled,
    states,
    stop_after,
    take,
)
from tests.support.late_commits import LATE_COMMITS, LateCommit
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.waiting import until

PEOPLE: Final = (
    "create table people (id int primary key, name text, note text)",
    "alter table people alter note set storage external",
    (
        "insert into people select g, 'name ' || g, repeat('long ', 1000)"
        " from generate_series(1, 50) g"
    ),
)


def snapshots(settings: Settings) -> list[dict[str, Any]]:
    return [row for row in history(settings.destination_url) if row["operation"] == "SNAPSHOT"]


def known(settings: Settings) -> dict[str, bool]:
    """Of each table with an open interval, whether its state is known."""
    with psycopg.connect(settings.destination_url) as conn:
        return dict(
            conn.execute(
                "select coalesce(partition, schema || '.' || \"table\"), "
                "state_position is not null from bemi.intervals where to_position is null"
            ).fetchall()
        )


def test_rows_that_were_there_become_snapshots_and_the_state_is_known_from_there(
    tracked: Track,
) -> None:
    t = tracked(*PEOPLE, "create table empty (id int primary key)")
    (result,) = take(t.settings)
    assert (result.table, result.rows, result.error) == ("public.people", 50, None)
    rows = snapshots(t.settings)
    assert {row["primary_key"] for row in rows} == {str(number) for number in range(1, 51)}
    assert all(row["was"] is None or row["was"] == row["after"] for row in rows)
    assert all(row["transaction_id"] for row in rows)
    assert_same(t.settings, "public.people", "public.empty")
    assert take(t.settings) == [], "all have theirs"


def test_again_stores_the_rows_once_more(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    take(t.settings)
    t.source.execute("update people set name = 'other' where id = 1")
    (result,) = take(t.settings, chosen=lambda _: True)
    assert result.rows == 50
    assert (result.created, result.updated, result.deleted) == (0, 0, 0)
    assert len(snapshots(t.settings)) == 100
    assert_same(t.settings, "public.people")


def test_what_it_waits_for_is_the_history_whoever_writes_it(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = tracked("create table a (id int primary key)", "insert into a values (1)")
    monkeypatch.setattr(baseline, "_PATIENCE", -1.0)
    with psycopg.connect(t.settings.destination_url) as other:

        class Held(Recorder):
            """Keeps the worker from its next commit until it is told that it is waited for."""

            def table(self, name: str, done: int, estimate: int) -> None:
                super().table(name, done, estimate)
                other.execute("select from bemi.checkpoints for update")

            def waiting(self, reason: str) -> None:
                super().waiting(reason)
                other.rollback()

        recorder = Held()
        take(t.settings, recorder=recorder)
    assert recorder.reasons
    assert all(reason.startswith("the history is ") for reason in recorder.reasons)


def test_what_was_stopped_goes_on_behind_the_last_chunk(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    recorder, stop = stop_after(20)
    assert take(t.settings, rows=10, recorder=recorder, stop=stop) == []
    assert len(snapshots(t.settings)) == 20
    assert known(t.settings) == {"public.people": False}
    again = Recorder()
    take(t.settings, rows=10, recorder=again)
    assert again.begun == [("public.people", 20)]
    keys = Counter(row["primary_key"] for row in snapshots(t.settings))
    assert len(keys) == 50
    assert set(keys.values()) == {1}
    assert_same(t.settings, "public.people")


@pytest.mark.parametrize(
    ("columns", "key", "values"),
    [
        ("a int, b text", "b, a", "g % 7, 'x' || g % 5 || '-' || g"),
        ('a text collate "C"', "a", "chr(60 + g % 60) || g"),
        ('a text collate "ucs_basic"', "a", "(array['a', 'B'])[g % 2 + 1] || g"),
        ("a char(3), b char(1)", "a, b", "g % 26, chr(65 + g / 26)"),
        ("a numeric", "a", "(g - 30)::numeric / 7"),
        ("a float8", "a", "(array['NaN', '-Infinity', g::text])[least(g, 3)]::float8 / 7"),
        ("a uuid", "a", "md5(g::text)::uuid"),
        ("a timestamptz", "a", "(array['infinity', 'now'])[least(g, 2)]::timestamptz + g * day"),
        ("a mood, b int", "a, b", "(array['sad', 'ok', 'glad'])[g % 3 + 1]::mood, g"),
        ("a small", "a", "g"),
        ("a bit(8), b varbit", "a, b", "(g % 4)::bit(8), g::bit(10)"),
        ("a int[], b bytea", "a, b", "array[g % 3, null, g % 5], int4send(g)"),
        ("a citext, b int", "a, b", "(array['b', 'B1', 'a', 'C'])[g % 4 + 1], g"),
        ('"a ""b" int, "Ä" bool', '"Ä", "a ""b"', "g, g % 2 = 0"),
        ("a pair", "a", "row(g % 5, 'x' || g)::pair"),
        ("a int4range, b interval", "a, b", "int4range(g % 4, 9), g * '1 hour'::interval"),
        ('a "char", b inet', "a, b", "chr(60 + g % 3)::\"char\", ('10.0.0.' || g)::inet"),
    ],
)
def test_pages_by_every_kind_of_key_hold_each_row_once(
    tracked: Track, columns: str, key: str, values: str
) -> None:
    t = tracked(
        "create extension if not exists citext",
        "create type mood as enum ('sad', 'ok', 'glad')",
        "create type pair as (x int, y text)",
        "create domain small as int check (value < 1000)",
        f"create table t ({columns}, primary key ({key}))",
        f"insert into t select {values} from generate_series(1, 60) g,"
        " (select '1 day'::interval) d (day)",
    )
    (result,) = take(t.settings, rows=7)
    assert result.rows == 60, result
    keys = Counter(row["primary_key"] for row in snapshots(t.settings))
    assert len(keys) == 60
    assert set(keys.values()) == {1}


def test_rows_are_read_as_the_stream_sends_them(tracked: Track) -> None:
    """Under the stream's settings and not the role's own, which would spell them otherwise."""
    t = tracked(
        "create type pair as (x int, y timestamptz)",
        "create table t (id int primary key, a timestamptz, b date, c interval, d bytea, e float8,"
        " f money, g pair, h timestamptz[], i json, j regclass, k float8, m int[],"
        " n int generated always as (id + 1) stored)",
        "insert into t (id, a, b, c, d, e, f, g, h, i, j, k, m) select g,"
        " '2026-01-02 03:04:05.5+05', '1500-03-01 BC', '1 mon -3 days 04:05:06',"
        " '\\xdeadbeef', 1e-300 / 3, 12.34::numeric::money, '(1,2026-01-02 03:04:05+00)',"
        " '{infinity}', '{\"a\" : [1,  2]}', 't', '-0', '[3:4]={1,2}'"
        " from generate_series(1, 2) g",
        "alter table t replica identity full",
    )
    for name, value in (
        ("datestyle", "German, DMY"),
        ("timezone", "Asia/Kolkata"),
        ("intervalstyle", "iso_8601"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-5"),
        ("search_path", "public"),
    ):
        t.source.execute(
            sql.SQL("alter database {} set {} to {}").format(
                sql.Identifier(t.source.info.dbname), sql.Identifier(name), sql.Literal(value)
            )
        )
    take(t.settings)
    t.source.execute("update t set id = id")
    t.catch_up()
    by_kind: dict[str, list[tuple[str, Any]]] = {}
    for row in history(t.settings.destination_url):
        image = (spelled(row["after"]), row["flags"])
        by_kind.setdefault(row["operation"], []).append(image)
    assert by_kind["SNAPSHOT"] == by_kind["UPDATE"]
    assert len(by_kind["SNAPSHOT"]) == 2


def test_names_are_spelled_as_the_stream_does_whatever_orders_the_rows(tracked: Track) -> None:
    """The operators of a key's type lie in a schema that the stream's search path has not."""
    t = tracked(
        "create extension citext",
        "create table t (k citext primary key, name regclass, names regproc[])",
        "create function f() returns int language sql as 'select 1'",
        "insert into t select 'K' || g, 'public.t', '{public.f,now}' from generate_series(1, 30) g",
    )
    take(t.settings, rows=7)
    t.source.execute("update t set k = lower(k)")
    t.catch_up()
    images: dict[str, list[dict[str, Any]]] = {"SNAPSHOT": [], "UPDATE": []}
    for row in history(t.settings.destination_url):
        images[row["operation"]].append(row["after"] | {"k": row["after"]["k"].lower()})
    assert images["SNAPSHOT"][0]["name"] == "public.t"
    assert sorted(images["SNAPSHOT"], key=str) == sorted(images["UPDATE"], key=str)
    assert len(images["UPDATE"]) == 30


# --- what goes on meanwhile ------------------------------------------------------------------


@pytest.fixture
def slow_commits(postgres_bin: Path | None) -> Iterator[Server]:
    """A server on which a transaction that asks for it commits, and nobody sees it yet."""
    with Server(settings={**SETTINGS, **LATE_COMMITS}, bin=postgres_bin) as server:
        yield server


@pytest.mark.parametrize(
    "statements",
    [
        ("update people set name = 'new' where id in (3, 17)",),
        ("delete from people where id in (3, 17)",),
        ("insert into people values (0, 'first', 'n'), (25000, 'last', 'n')",),
        ("update people set id = id + 1000 where id in (3, 17)",),
        ("delete from people where id = 3", "insert into people values (3, 'again', 'n')"),
        ("update people set id = -3 where id = 3", "update people set id = 3 where id = 17"),
    ],
)
@pytest.mark.parametrize("identity", ["default", "full"])
def test_a_commit_that_nobody_sees_yet_has_the_last_word(
    slow_commits: Server, statements: tuple[str, ...], identity: str
) -> None:
    """Its commit lies before the chunk's place, and the chunk's rows are older than it."""
    source_url = slow_commits.create_database("source")
    with psycopg.connect(source_url, autocommit=True) as conn:
        for statement in (*PEOPLE, f"alter table people replica identity {identity}"):
            conn.execute(statement.encode())
    settings = track(source_url, slow_commits.create_database("destination"), schemas=("*",))
    late = LateCommit(source_url, *statements)

    def release(_name: str, done: int) -> None:
        if done == 50:
            late.release()

    (result,) = take(settings, rows=20, recorder=Recorder(release))
    assert result.error is None
    assert_same(settings, "public.people")
    assert result.incomplete == 0


@pytest.mark.parametrize(
    "statements",
    [
        ("update notes set n = 9 where n = 1",),
        ("delete from notes where ctid in (select ctid from notes where n = 1 limit 2)",),
        ("insert into notes values (1, '1.50', '{}'), (7, '-0', null)",),
        (
            "insert into notes values (8, '1', '{}')",
            "delete from notes where n = 8",
            "update notes set x = 2 where n = 2",
        ),
    ],
)
def test_a_commit_that_nobody_sees_yet_in_a_table_without_a_key(
    slow_commits: Server, statements: tuple[str, ...]
) -> None:
    source_url = slow_commits.create_database("source")
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table notes (n int, x numeric, j json)")
        conn.execute("alter table notes replica identity full")
        conn.execute(
            "insert into notes select g % 3, 1.50, '{\"a\":  1}' from generate_series(1, 30) g"
        )
    settings = track(source_url, slow_commits.create_database("destination"), schemas=("*",))
    late = LateCommit(source_url, *statements)
    (result,) = take(settings)
    assert result.error is None
    late.release()
    assert_same(settings, "public.notes")


BACKFILL: Final = (
    "select pg_logical_emit_message(true, '_bemi', '{\"job\": \"backfill\"}')",
    "update people set name = 'filled in' where id = 3",
)


@pytest.fixture(params=[("add primary key (id)", "default"), ("alter id set not null", "full")])
def backfilled(slow_commits: Server, request: pytest.FixtureRequest) -> Settings:
    """A table, with and without a key, of which a rule leaves changes out."""
    source_url = slow_commits.create_database("source")
    key, identity = request.param
    with psycopg.connect(source_url, autocommit=True) as conn:
        for statement in (
            "create table people (id int, name text)",
            f"alter table people {key}",
            f"alter table people replica identity {identity}",
            "insert into people select g, 'name ' || g from generate_series(1, 50) g",
        ):
            conn.execute(statement.encode())
    settings = track(source_url, slow_commits.create_database("destination"), schemas=("*",))
    return replace(settings, rules=Rules(skip=(Skip(context={"job": "backfill"}),)))


def test_what_a_rule_leaves_out_and_nobody_sees_yet_is_waited_for(
    backfilled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history never has it, so that the rows would stay as they were read."""
    hanging = LateCommit(backfilled.source_url, *BACKFILL)
    again = BaselineTaker._try_again

    def release(self: BaselineTaker, tries: int, subject: Any) -> int:
        if not tries:
            hanging.release()
        return again(self, tries, subject)

    monkeypatch.setattr(BaselineTaker, "_try_again", release)
    try:
        (result,) = take(backfilled, rows=20)
    finally:
        hanging.release()
    assert result.error is None
    assert_state(backfilled, "public.people")


def test_what_a_rule_leaves_out_and_nobody_will_see_soon_is_told(
    backfilled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "_TRIES", 2)
    hanging = LateCommit(backfilled.source_url, *BACKFILL)
    try:
        (result,) = take(backfilled, rows=20)
    finally:
        hanging.release()
    assert "left out by rule" in (result.error or "")
    assert known(backfilled) == {"public.people": False}


def test_what_a_rule_left_out_before_keeps_no_baseline_from_ending(backfilled: Settings) -> None:
    """Not even while somebody's transaction stays open, as long as not too many came since."""
    with psycopg.connect(backfilled.source_url, autocommit=True) as conn:
        for _ in range(3):
            with conn.transaction():
                for statement in BACKFILL:
                    conn.execute(statement.encode())
    with psycopg.connect(backfilled.source_url) as other:
        other.execute("select pg_current_xact_id()")
        (result,) = take(backfilled, rows=20)
    assert result.error is None
    assert_state(backfilled, "public.people")


def test_which_changes_rules_left_out_is_known_of_the_last_ones(
    backfilled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open transaction that is older than these may be one of the others."""
    monkeypatch.setattr(baseline, "_TRIES", 1)
    monkeypatch.setattr(gaps, "REMEMBERED", 2)
    with psycopg.connect(backfilled.source_url) as other:
        other.execute("select pg_current_xact_id()")
        with psycopg.connect(backfilled.source_url, autocommit=True) as conn:
            for _ in range(5):
                with conn.transaction():
                    for statement in BACKFILL:
                        conn.execute(statement.encode())
        (result,) = take(backfilled, rows=20)
        assert "no transaction stays open" in (result.fix or "")
    with psycopg.connect(backfilled.destination_url) as destination:
        row = destination.execute("select count(*) from bemi.left_out").fetchone()
    assert row is not None
    assert row[0] <= 3
    (result,) = take(backfilled, rows=20)
    assert result.error is None
    assert_state(backfilled, "public.people")


def test_what_a_rule_leaves_out_behind_a_chunk_makes_the_state_unknown(tracked: Track) -> None:
    """The chunk's rows may be out of date by the end, and only a new baseline tells."""
    t = tracked(*PEOPLE)
    settings = replace(t.settings, rules=Rules(skip=(Skip(context={"job": "backfill"}),)))

    def fill_in(_name: str, done: int) -> None:
        if done == 20:
            with t.source.transaction():
                for statement in BACKFILL:
                    t.source.execute(statement.encode())

    (result,) = take(settings, rows=10, recorder=Recorder(fill_in))
    assert result.error is None
    with pytest.raises(UnknownStateError, match="ignored"):
        assert_state(settings, "public.people")
    begin_coverage(settings, lambda _: None, chosen=lambda _: True)
    (result,) = take(settings, rows=10)
    assert (result.rows, result.updated) == (50, 1)
    assert_state(settings, "public.people")


def test_rows_that_move_between_the_chunks_are_whole(tracked: Track) -> None:
    """To where was read already; their long values are in no change, and in no chunk."""
    t = tracked(*PEOPLE)

    def move(_name: str, done: int) -> None:
        if done == 20:
            t.source.execute("update people set id = -id where id > 30")

    (result,) = take(t.settings, rows=10, recorder=Recorder(move))
    assert result.incomplete == 0
    assert_same(t.settings, "public.people")
    with psycopg.connect(t.settings.destination_url) as conn:
        row = conn.execute(
            "select count(*) from bemi.row_changes where 'unchanged:note' = any(flags)"
        ).fetchone()
    assert row == (20,), "the stream did not have them"


def change_behind(
    t: Tracked, monkeypatch: pytest.MonkeyPatch, *statements: str, key: str
) -> list[int]:
    """Lets the statements run behind the place of a chunk, and be stored before it, up to `key`.

    The chunk's place will be in the list.
    """
    touched = Ledger.touched
    told: list[int] = []

    def slowly(self: Ledger, interval: Any, moment: Any, keys: Any) -> Any:
        if not told:
            told.append(moment.position)
            for statement in statements:
                t.source.execute(statement.encode())
            until(
                lambda: t.query("select 1 from bemi.row_changes where primary_key = %s", [key]),
                60,
                "the changes are stored",
            )
        return touched(self, interval, moment, keys)

    monkeypatch.setattr(Ledger, "touched", slowly)
    return told


def test_a_change_behind_a_chunk_that_is_stored_before_it(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks the long value, which the chunk then tells of the time before."""
    t = tracked(*PEOPLE)
    told = change_behind(t, monkeypatch, "update people set name = 'newer' where id = 7", key="7")
    (result,) = take(t.settings)
    assert result.incomplete == 0
    newer, snapshot = sorted(
        (row for row in history(t.settings.destination_url) if row["primary_key"] == "7"),
        key=lambda row: str(row["operation"] == "SNAPSHOT"),
    )
    assert newer["flags"] == ["before_unknown", "unchanged:note"]
    assert snapshot["commit_position"] == told[0] < newer["commit_position"]
    with psycopg.connect(t.settings.destination_url) as conn:
        rows = {
            row.key: (json.loads(bytes(row.image)), row.flags)
            for row in state(
                conn, "bemi", t.settings.source, "public.people", Lsn(newer["commit_position"])
            )
        }
    whole = {"id": 7, "name": "newer", "note": "long " * 1000}
    assert rows["7"] == (whole, frozenset({"before_unknown"}))
    assert_same(t.settings, "public.people")

    # What comes later finds it behind that change, and is whole itself.
    t.source.execute("update people set id = 700 where id = 7")
    t.source.execute("update people set name = 'newest' where id = 700")
    t.catch_up()
    moved, newest = history(t.settings.destination_url)[-2:]
    assert (moved["was"], moved["after"]) == (whole, whole | {"id": 700})
    assert newest["was"] == moved["after"]
    assert newest["after"] == moved["after"] | {"name": "newest"}
    assert moved["flags"] is newest["flags"] is None
    assert_state(t.settings, "public.people")


def test_rows_that_move_behind_a_chunk_that_is_stored_later(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long value is that of the row under the key that it had when the chunk was read."""
    t = tracked(*PEOPLE)
    change_behind(
        t,
        monkeypatch,
        "update people set name = 'newer' where id = 7",
        "update people set id = 700 where id = 7",
        "update people set id = 7000 where id = 700",
        key="7000",
    )
    monkeypatch.setattr(Ledger, "lacking", lambda *_: [])  # it is not read again
    take(t.settings)
    t.source.execute("update people set name = 'newest' where id = 7000")
    t.source.execute("insert into people values (7, 'another', 'short')")
    t.catch_up()
    stored = history(t.settings.destination_url)
    moved = [row for row in stored if row["previous_key"] is not None]
    assert [row["flags"] for row in moved] == [["unchanged:note"]] * 2
    assert stored[-2]["flags"] is None
    assert stored[-2]["after"] == {"id": 7000, "name": "newest", "note": "long " * 1000}
    with psycopg.connect(t.settings.destination_url) as conn:
        for row in moved:
            place = Lsn(row["commit_position"])
            then = state(conn, "bemi", t.settings.source, "public.people", place)
            images = {each.key: json.loads(bytes(each.image)) for each in then}
            assert images[row["primary_key"]]["note"] == "long " * 1000
    assert_state(t.settings, "public.people")


def test_old_rows_come_from_a_baseline_as_they_do_from_the_log(tracked: Track) -> None:
    """The same statements on twin tables, one under FULL: the same images, row by row."""
    columns = "(id int primary key, name text, n numeric, note text)"
    t = tracked(*(
        statement.replace("TWIN", name)
        for name in ("one", "other")
        for statement in (
            f"create table TWIN {columns}",
            "alter table TWIN alter note set storage external",
            (
                "insert into TWIN select g, 'n' || g, g / 7.0, repeat('long ', 1000)"
                " from generate_series(1, 40) g"
            ),
        )
    ), "alter table other replica identity full")  # fmt: skip
    take(t.settings, rows=15)
    for statement in (
        "update TWIN set name = 'new' where id % 3 = 0",
        "update TWIN set note = 'short' where id % 5 = 0",
        "update TWIN set id = id + 100 where id % 7 = 0",
        "update TWIN set n = n + 1",
        "delete from TWIN where id % 2 = 0",
        "insert into TWIN values (2, 'again', 1, repeat('x ', 3000))",
        "update TWIN set n = 0 where id = 2",
    ):
        for name in ("one", "other"):
            t.source.execute(statement.replace("TWIN", name).encode())
    t.catch_up()
    seen: dict[str, list[tuple[Any, ...]]] = {"one": [], "other": []}
    for row in history(t.settings.destination_url):
        if row["operation"] != "SNAPSHOT":
            seen[row["table"]].append(
                (row["operation"], row["primary_key"], row["was"], row["after"], row["flags"])
            )
    assert len(seen["one"]) > 80
    assert seen["one"] == seen["other"]


def test_truncate_between_the_chunks(tracked: Track) -> None:
    t = tracked(*PEOPLE)

    def truncate(_name: str, done: int) -> None:
        if done == 20:
            t.source.execute("truncate people")
            t.source.execute("insert into people select g, 'new' from generate_series(25, 45) g")

    take(t.settings, rows=10, recorder=Recorder(truncate))
    assert_same(t.settings, "public.people")


def test_a_transaction_that_is_open_all_the_while(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    with t.connect() as conn:
        conn.autocommit = False
        conn.execute("update people set name = 'late' where id in (1, 50)")
        conn.execute("delete from people where id = 25")
        take(t.settings, rows=10)
        conn.commit()
    t.catch_up()
    assert_same(t.settings, "public.people")


def test_a_locked_table_is_waited_for(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    conn = t.connect()
    conn.autocommit = False
    conn.execute("lock table people in access exclusive mode")
    recorder = Recorder()
    thread = threading.Thread(target=take, args=[t.settings], kwargs={"recorder": recorder})
    thread.start()
    until(lambda: recorder.reasons, 60, "it says that it waits")
    assert "locked" in recorder.reasons[0]
    conn.rollback()
    conn.close()
    thread.join()
    assert_same(t.settings, "public.people")


def test_servers_that_restart_are_waited_for(slow_commits: Server) -> None:
    """In the middle of it, as a crash would: nothing is stored twice, and nothing is left out."""
    source_url = slow_commits.create_database("source")
    with psycopg.connect(source_url, autocommit=True) as conn:
        for statement in PEOPLE:
            conn.execute(statement.encode())
    settings = track(source_url, slow_commits.create_database("destination"), schemas=("*",))
    restarted: list[int] = []

    def restart(_name: str, done: int) -> None:
        if done in (10, 30) and done not in restarted:
            restarted.append(done)
            slow_commits.stop("immediate")
            slow_commits.start()

    (result,) = take(settings, rows=10, recorder=Recorder(restart))
    assert (result.rows, result.error, restarted) == (50, None, [10, 30])
    keys = Counter(row["primary_key"] for row in snapshots(settings))
    assert len(keys) == 50
    assert set(keys.values()) == {1}
    assert_same(settings, "public.people")


def test_a_source_that_is_paused_is_refused(tracked: Track) -> None:
    """Its worker would wait, and the baseline with it."""
    t = tracked(*PEOPLE)
    t.query("update bemi.sources set paused_at = now() returning name")
    with pytest.raises(SetupError, match="is paused"):
        take(t.settings)


# --- what can't be ---------------------------------------------------------------------------


def test_a_table_that_is_altered_meanwhile_is_begun_anew_and_the_others_go_on(
    tracked: Track,
) -> None:
    t = tracked(*PEOPLE, "create table q (id int primary key)", "insert into q values (1)")

    def alter(name: str, done: int) -> None:
        if (name, done) == ("public.people", 20):
            t.source.execute("alter table people add column extra int default 7")

    people, q = take(t.settings, rows=10, recorder=Recorder(alter))
    assert "altered" in (people.error or "")
    assert "bemi snapshot" in (people.fix or "")
    assert q.error is None
    assert known(t.settings) == {"public.people": False, "public.q": True}
    again = Recorder()
    (result,) = take(t.settings, rows=10, recorder=again)
    assert again.begun == [("public.people", 0)]
    assert (result.rows, result.error) == (50, None)
    assert_same(t.settings, "public.people", "public.q")


def test_a_destination_that_stalls_keeps_no_transaction_open_on_the_source(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at a table in one piece is given up, and taken again."""
    t = tracked(
        "create table notes (n int)",
        "insert into notes select generate_series(1, 5)",
        full=["*.notes"],
    )
    monkeypatch.setattr(baseline, "_OPEN", 0.1)
    look, in_one_piece = TableReader._open, BaselineTaker._in_one_piece
    stalling = psycopg.connect(t.settings.destination_url)
    given_up: list[PassingError] = []

    def stalled(self: TableReader, relation: int, at_once: bool) -> Any:
        if not given_up:
            stalling.execute("select from bemi.checkpoints for update")
        return look(self, relation, at_once)

    def watched(self: BaselineTaker, *arguments: Any) -> Any:
        try:
            return in_one_piece(self, *arguments)
        except PassingError as error:
            given_up.append(error)
            raise

    monkeypatch.setattr(TableReader, "_open", stalled)
    monkeypatch.setattr(BaselineTaker, "_in_one_piece", watched)
    results: list[Any] = []
    taking = threading.Thread(target=lambda: results.extend(take(t.settings)))
    taking.start()
    try:
        until(lambda: given_up, 30, "the look is given up")
        assert _open_on(t.source) == 0
    finally:
        stalling.close()
        taking.join()
    assert [(result.rows, result.error) for result in results] == [(5, None)]
    assert_state(t.settings, "public.notes")


@pytest.mark.parametrize(
    ("key", "values", "altered"),
    [
        ("mood", "'sad', 'ok', 'glad', 'proud'", "alter type mood rename value 'ok' to 'fine'"),
        ("regclass", "'one', 'two', 'three', 'four'", "drop table one, two, three, four"),
    ],
)
def test_a_place_to_go_on_from_that_is_no_value_any_more_begins_anew(
    tracked: Track, key: str, values: str, altered: str
) -> None:
    """And the others go on: such a table never kept them from theirs."""
    t = tracked(
        "create type mood as enum ('sad', 'ok', 'glad', 'proud')",
        *(f"create table {name} ()" for name in ("one", "two", "three", "four")),
        f"create table t (k {key} primary key)",
        "create table z (k int primary key)",
        f"insert into t select unnest(array[{values}])::{key}",
        "insert into z values (1)",
    )
    recorder, stop = stop_after(2)
    take(t.settings, rows=2, recorder=recorder, stop=stop)
    t.source.execute(altered.encode())
    first, other = take(t.settings, rows=2)
    assert (other.table, other.error) == ("public.z", None)
    if first.error is not None:  # else the worker's look has heard of the label first
        assert "no value of it any more" in first.error
        (first,) = take(t.settings, rows=2)
    assert (first.table, first.error, first.rows) == ("public.t", None, 4)


def test_values_that_ddl_rewrites_meanwhile_are_read_anew(tracked: Track) -> None:
    """The type is what it was."""
    t = tracked(*PEOPLE)
    recorder, stop = stop_after(20)
    take(t.settings, rows=10, recorder=recorder, stop=stop)
    t.source.execute("alter table people alter name type text using upper(name)")
    again = Recorder()
    take(t.settings, rows=10, recorder=again)
    assert again.begun == [("public.people", 0)]
    assert_same(t.settings, "public.people")


def test_a_table_that_is_renamed_meanwhile_goes_on(tracked: Track) -> None:
    t = tracked(*PEOPLE)

    def rename(_name: str, done: int) -> None:
        if done == 20:
            t.source.execute("alter table people rename to humans")

    (result,) = take(t.settings, rows=10, recorder=Recorder(rename))
    assert (result.rows, result.error) == (50, None)
    assert_same(t.settings, "public.humans")


def test_a_table_that_is_dropped_meanwhile_is_told_and_the_others_go_on(tracked: Track) -> None:
    t = tracked(*PEOPLE, "create table q (id int primary key)", "insert into q values (1)")

    def drop(name: str, done: int) -> None:
        if (name, done) == ("public.people", 20):
            t.source.execute("drop table people")

    people, q = take(t.settings, rows=10, recorder=Recorder(drop))
    assert "dropped" in (people.error or "")
    assert q.error is None


def test_a_role_that_may_not_read_is_told_the_grant(tracked: Track) -> None:
    t = tracked(*PEOPLE, "create schema s", "create table s.q (id int primary key)")
    t.source.execute("insert into s.q values (1)")
    t.source.execute("drop role if exists reader; create role reader login password 'x'")
    with TableReader(as_role(t.settings, "reader"), timeline=1) as reader:
        for relation, grant in (
            ("people", "grant select on public.people to reader;"),
            ("s.q", "grant usage on schema s to reader; grant select on s.q to reader;"),
        ):
            oid = oid_of(t.source, relation)
            with pytest.raises(TableError) as caught, reader.look(oid):
                pass
            assert caught.value.fix == grant
            t.source.execute(grant.encode())
            with reader.look(oid) as look:
                assert look.page(None, Limits()).exhausted


def test_row_level_security_is_refused_and_never_hides_rows(tracked: Track) -> None:
    t = tracked(*PEOPLE, "create policy p on people using (id < 10)")
    t.source.execute("drop role if exists limited; create role limited login password 'x'")
    t.source.execute("alter table people enable row level security")
    t.source.execute("grant select on people to limited")
    with TableReader(as_role(t.settings, "limited"), timeline=1) as reader:
        with pytest.raises(TableError, match="row-level security") as caught:
            with reader.look(oid_of(t.source, "people")) as look:
                look.page(None, Limits())
        assert "bypassrls" in (caught.value.fix or "")


def test_of_two_at_once_one_waits(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    t.catch_up()
    other = Ledger(t.settings)
    with pytest.raises(BaselineBusyError, match="another process"):
        Ledger(t.settings)
    recorder = Recorder()
    thread = threading.Thread(target=take, args=[t.settings], kwargs={"recorder": recorder})
    thread.start()
    until(lambda: recorder.reasons, 60, "it says that it waits")
    assert "another process takes baselines" in recorder.reasons[0]
    assert snapshots(t.settings) == []
    other.close()
    thread.join()
    assert_same(t.settings, "public.people")


def test_rules_that_are_not_the_workers_are_refused(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else values that the worker masks would be stored after all."""
    monkeypatch.setattr("bemi.capture.snapshot._SETTLING", 1.0)
    t = tracked(*PEOPLE)
    masking = replace(t.settings, rules=Rules(mask=("people.name",)))
    with worker_of(masking), pytest.raises(RulesDifferError, match="other rules"):
        take(t.settings)
    assert snapshots(t.settings) == []


# --- rules -----------------------------------------------------------------------------------


def test_rules_hold_for_rows_that_were_there(tracked: Track) -> None:
    t = tracked(
        "create table t (id int primary key, a text, b text, c text, d text)",
        (
            "insert into t select g, 'canary a', 'canary b', 'canary c', 'd'"
            " from generate_series(1, 9) g"
        ),
    )
    settings = replace(
        t.settings,
        rules=Rules(exclude=("t.a",), mask=("t.b",), hash=("t.c",)),
        hash_key="0123456789abcdef",
    )
    take(settings, rows=4)
    t.source.execute("update t set d = 'e' where id = 1")
    rows = snapshots(settings)
    assert len(rows) == 9
    assert all(row["after"].keys() == {"id", "b", "c", "d"} for row in rows)
    assert {row["after"]["b"] for row in rows} == {"***"}
    assert {tuple(row["flags"]) for row in rows} == {("masked:b", "hashed:c")}
    assert len({row["after"]["c"] for row in rows}) == 1
    assert canaries(settings) == 0


@pytest.mark.parametrize(
    "rules", [Rules(hash=("t.id",)), Rules(mask=("t.id",)), Rules(exclude=("t.id",))]
)
def test_a_key_that_is_hidden_is_not_kept_to_go_on_from(tracked: Track, rules: Rules) -> None:
    t = tracked(
        "create table t (id text primary key, v int)",
        "insert into t select 'canary ' || g, g from generate_series(1, 30) g",
        "alter table t replica identity full",
    )
    settings = replace(t.settings, rules=rules, hash_key="0123456789abcdef")
    recorder, stop = stop_after(20)
    take(settings, rows=10, recorder=recorder, stop=stop)
    assert all(result.error is None for result in take(settings, rows=10))
    t.source.execute("update t set v = -v where v = 3")
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    assert canaries(settings) == 0
    (state,) = states(settings.destination_url).values()
    assert sum(state.values()) == 30


def test_an_ignored_column_makes_no_difference(tracked: Track) -> None:
    """Its changes are not in the history, which is no reason to infer any."""
    t = tracked("create table t (id int primary key, seen int)", "insert into t values (1, 1)")
    settings = replace(t.settings, rules=Rules(ignore=("t.seen",)))
    take(settings)
    t.source.execute("alter publication bemi drop table t")
    t.source.execute("update t set seen = 2")
    t.source.execute("alter publication bemi add table t")
    (result,) = take(settings)
    assert (result.compared, result.created, result.updated) == (True, 0, 0)


# --- tables of every kind --------------------------------------------------------------------


def test_partitions_and_children_each_by_themselves(tracked: Track) -> None:
    t = tracked(
        "create table p (id int, r text, primary key (id, r)) partition by list (r)",
        "create table p_a partition of p for values in ('a')",
        "create table p_b partition of p for values in ('b')",
        "create table parent (id int primary key)",
        "create table child (primary key (id)) inherits (parent)",
        "insert into p select g, case when g % 2 = 0 then 'a' else 'b' end"
        " from generate_series(1, 20) g",
        "insert into parent values (1), (2)",
        "insert into child values (3)",
    )
    results = {result.table: result.rows for result in take(t.settings, rows=3)}
    assert results == {"public.p_a": 10, "public.p_b": 10, "public.parent": 2, "public.child": 1}
    assert {row["table"] for row in snapshots(t.settings)} == {"p", "parent", "child"}
    assert_same(t.settings, "public.p_a", "public.p_b", "public.parent", "public.child")


def test_a_table_without_columns_and_one_without_a_key(tracked: Track) -> None:
    t = tracked(
        "create table nothing ()",
        "insert into nothing default values",
        "insert into nothing default values",
        "create table notes (n int)",
        "insert into notes select g % 2 from generate_series(1, 5) g",
        full=("nothing", "notes"),
    )
    take(t.settings)
    t.source.execute("delete from notes where ctid = (select ctid from notes where n = 1 limit 1)")
    t.catch_up()
    assert_same(t.settings, "public.notes", "public.nothing")


def test_an_identity_whose_index_has_another_order_is_read_in_one_piece(tracked: Track) -> None:
    t = tracked(
        "create table t (a int not null, b int not null)",
        "create unique index i on t (a, b desc)",
        "alter table t replica identity using index i",
        "insert into t select g % 5, g from generate_series(1, 40) g",
    )
    (result,) = take(t.settings, rows=7)
    assert result.rows == 40
    t.source.execute("update t set b = -b where a = 2")
    t.source.execute("delete from t where a = 3")
    t.catch_up()
    assert_same(t.settings, "public.t")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_other_encodings(tracked: Track, encoding: str) -> None:
    t = tracked(encoding=encoding, locale="C")
    raw = b"\xe4" if encoding == "LATIN1" else "ä".encode()
    with psycopg.connect(t.settings.source_url, autocommit=True) as conn:
        conn.execute(f"set client_encoding to {encoding}".encode())
        conn.pgconn.exec_(b'create table "t%b" (id text primary key, "%b" text)' % (raw, raw))
        conn.pgconn.exec_(
            b"insert into \"t%b\" select '%b' || g, '%b' from generate_series(1, 10) g"
            % (raw, raw, raw)
        )
    track_again(t.settings)
    (result,) = take(t.settings, rows=3)
    assert result.rows == 10
    rows = snapshots(t.settings)
    assert {row["primary_key"] for row in rows} == {f"ä{number}" for number in range(1, 11)}
    assert all(row["after"]["ä"] == "ä" for row in rows)


def test_wide_rows_come_a_few_at_a_time(tracked: Track) -> None:
    t = tracked(
        "create table t (id int primary key, v text)",
        "insert into t select g, repeat('x', 1000000) from generate_series(1, 40) g",
    )
    stored: list[int] = []
    take(t.settings, recorder=Recorder(lambda _name, done: stored.append(done)))
    assert stored[-1] == 40
    assert len(stored) > 3, "8 MB end a chunk"
    assert len(snapshots(t.settings)) == 40


# --- a history from before -------------------------------------------------------------------


def test_what_changed_while_nobody_looked_is_inferred(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    take(t.settings)
    t.source.execute("delete from people where id = 50")
    t.source.execute("update people set name = 'seen' where id = 40")
    t.catch_up()
    t.source.execute("alter publication bemi drop table people")
    t.source.execute("update people set name = 'unseen', id = id where id = 1")
    t.source.execute("update people set id = 1002 where id = 2")
    t.source.execute("delete from people where id = 3")
    t.source.execute("insert into people values (50, 'back', 'n'), (60, 'new', 'n')")
    t.source.execute("alter publication bemi add table people")
    before = len(history(t.settings.destination_url))

    (result,) = take(t.settings, rows=10)

    assert (result.compared, result.itemised) == (True, True)
    assert (result.created, result.updated, result.deleted) == (3, 1, 2)
    rows = history(t.settings.destination_url)[before:]
    inferred = {
        (row["operation"], row["primary_key"]): row
        for row in rows
        if row["operation"] != "SNAPSHOT"
    }
    assert inferred.keys() == {
        ("UPDATE", "1"),
        ("DELETE", "2"),
        ("DELETE", "3"),
        ("CREATE", "50"),
        ("CREATE", "60"),
        ("CREATE", "1002"),
    }
    assert all(row["flags"] == ["inferred"] for row in inferred.values())
    assert inferred["UPDATE", "1"]["changed"] == {"name": "name 1"}
    assert inferred["DELETE", "3"]["before"]["name"] == "name 3"
    assert all(row["flags"] is None for row in rows if row["operation"] == "SNAPSHOT")
    assert_same(t.settings, "public.people")


def test_rows_that_the_history_never_had_are_not_taken_for_new(tracked: Track) -> None:
    """Nobody knows whether they were there before the gap: only that they are."""
    t = tracked(*PEOPLE)
    t.source.execute("update people set name = 'seen' where id <= 10")
    t.catch_up()
    t.source.execute("alter publication bemi drop table people")
    t.source.execute("update people set name = 'unseen' where id = 1")
    t.source.execute("alter publication bemi add table people")
    (result,) = take(t.settings)
    assert (result.created, result.updated, result.deleted) == (0, 1, 0)
    assert_same(t.settings, "public.people")


def test_a_table_that_was_truncated_unseen_and_one_that_is_truncated_meanwhile(
    tracked: Track,
) -> None:
    t = tracked(*PEOPLE, "create table q (id int primary key)", "insert into q values (1), (2)")
    take(t.settings)
    for name in ("people", "q"):
        t.source.execute(f"alter publication bemi drop table {name}".encode())
    t.source.execute("truncate people")
    for name in ("people", "q"):
        t.source.execute(f"alter publication bemi add table {name}".encode())

    def truncate(name: str, done: int) -> None:
        if name == "public.q" and done == 1:
            t.source.execute("truncate q")

    people, q = take(t.settings, rows=1, recorder=Recorder(truncate))
    assert (people.rows, people.deleted) == (0, 50)
    assert q.deleted == 0, "TRUNCATE has told of them"
    assert_same(t.settings, "public.people", "public.q")


def test_a_table_without_a_key_is_stored_anew(tracked: Track) -> None:
    t = tracked(
        "create table notes (n int)", "insert into notes values (1), (1), (2)", full=("notes",)
    )
    take(t.settings)
    t.source.execute("alter publication bemi drop table notes")
    t.source.execute("delete from notes where n = 2")
    t.source.execute("alter publication bemi add table notes")
    (result,) = take(t.settings)
    assert (result.compared, result.itemised, result.rows) == (True, False, 2)
    assert_same(t.settings, "public.notes")


def test_a_table_without_a_key_is_never_there_twice(tracked: Track) -> None:
    """Where its state was known, the rows that are stored anew stand for it from there on."""
    t = tracked("create table notes (n int)", full=("notes",))
    t.source.execute("insert into notes values (1), (1), (2)")
    t.catch_up()
    for removed in (1, 2):
        (before,) = t.query("select position from bemi.checkpoints")
        take(t.settings, chosen=lambda _: True)
        assert_state(t.settings, "public.notes")
        t.source.execute("delete from notes where n = %s", [removed])
        t.catch_up()
        assert_state(t.settings, "public.notes")
        with psycopg.connect(t.settings.destination_url) as conn:
            rows = state(
                conn, "bemi", t.settings.source, "public.notes", Lsn(before["position"] - 1)
            )
            assert len(list(rows)) == {1: 3, 2: 1}[removed], "as it was before"
    assert take(t.settings) == [], "all have theirs"


def test_a_table_without_a_key_that_was_empty_when_it_was_tracked_again(tracked: Track) -> None:
    t = tracked("create table notes (n int)", full=("notes",))
    t.source.execute("insert into notes values (1)")
    t.catch_up()
    t.source.execute("alter publication bemi drop table notes")
    t.source.execute("truncate notes")
    t.source.execute("alter publication bemi add table notes")
    assert begin_coverage(t.settings, lambda _: None) == ()
    t.source.execute("insert into notes values (2)")
    t.catch_up()
    (result,) = take(t.settings)
    assert (result.compared, result.rows) == (True, 1)
    assert_state(t.settings, "public.notes")
    assert take(t.settings) == [], "all have theirs"


# --- in a worker -----------------------------------------------------------------------------


def test_a_worker_takes_the_baselines_of_tables_that_are_added_later(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    init(t.settings, snapshot=True, report=lambda _: None)
    with worker_of(t.settings):
        until(lambda: known(t.settings) == {"public.people": True}, 60, "the first baseline")
        t.source.execute("create table later (id int primary key)")
        t.source.execute("insert into later values (1)")
        until(lambda: known(t.settings).get("public.later"), 90, "the later one")
    assert_same(t.settings, "public.people", "public.later")


@contextlib.contextmanager
def worker_of(settings: Settings) -> Iterator[None]:
    """A worker in a thread, which has begun to capture."""
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=[settings], kwargs={"stop": stop})
    thread.start()
    try:
        with psycopg.connect(settings.source_url, autocommit=True) as conn:
            until(
                lambda: conn.execute(
                    "select 1 from pg_replication_slots where slot_name = %s and active",
                    [settings.slot],
                ).fetchone(),
                60,
                "the worker holds the slot",
            )
        yield
    finally:
        stop.set()
        thread.join()


def as_role(settings: Settings, role: str) -> Settings:
    return replace(settings, source_url=make_conninfo(settings.source_url, user=role, password="x"))


def _open_on(conn: psycopg.Connection[Any]) -> int:
    """How many other sessions hold back what vacuum may take away."""
    row = conn.execute(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and state = 'idle in transaction' and backend_xmin is not null"
    ).fetchone()
    assert row is not None
    return int(row[0])


def oid_of(conn: psycopg.Connection[Any], relation: str) -> int:
    row = conn.execute("select %s::regclass::oid::bigint", [relation]).fetchone()
    assert row is not None
    return int(row[0])


def track_again(settings: Settings) -> None:
    """Publish what was made since."""
    init(settings, report=lambda _: None)


def canaries(settings: Settings) -> int:
    """How many rows of the store have a value that must not be there."""
    with psycopg.connect(settings.destination_url) as conn:
        row = conn.execute(
            "select (select count(*) from bemi.row_changes r where r::text like '%canary%')"
            " + (select count(*) from bemi.baselines b"
            " where convert_from(array_to_string(last_key, '')::bytea, 'UTF8') like '%canary%')"
        ).fetchone()
    assert row is not None
    return int(row[0])
