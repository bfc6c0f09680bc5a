"""`bemi.stream` gives what is captured: once, in order, to who waits, from where it stood."""

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

import bemi
from bemi.capture import worker
from bemi.config import Settings
from bemi.errors import GapError, NotYetError, SetupError, UsageError
from bemi.history import feed, waiting
from bemi.history.change import Change
from bemi.history.cursor import Cursor, LogPlace
from bemi.lsn import Lsn
from bemi.store import baselines, log, notices
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.support import baselines as taking
from tests.support.pgbouncer import pooled
from tests.support.several import TABLE
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.waiting import until

TODO = "create table todo (id int primary key, task text)"
NEVER = 10**6


@pytest.fixture(autouse=True)
def _never_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits here is told, or waits for ever."""
    monkeypatch.setattr(feed, "LONGEST_WAIT", NEVER)
    monkeypatch.setattr(waiting, "LONGEST_WAIT", NEVER)


@contextmanager
def capturing(*settings: Settings) -> Iterator[None]:
    """Workers, in this process, as long as the block lasts."""
    stop = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(worker.run, each, stop=stop) for each in settings]
        try:
            yield
        finally:
            stop.set()
        for each in running:
            each.result(30)


def all_of(at: Tracked, **options: Any) -> list[Change]:
    with bemi.stream(
        at.settings.destination_url, start="beginning", until_caught_up=True, **options
    ) as changes:
        return [*changes]


def keys(changes: list[Change]) -> list[str | None]:
    return [each.primary_key for each in changes]


def test_changes_come_as_they_are_captured_without_polling(tracked: Track) -> None:
    at = tracked(TODO)
    with bemi.stream(at.settings.destination_url, timeout=30) as changes, capturing(at.settings):
        found = iter(changes)
        for number in range(5):
            at.source.execute("insert into todo values (%s, 'x')", [number])
            change = next(found)
            assert (change.operation, change.primary_key) == ("CREATE", str(number))
            assert change.after == {"id": number, "task": "x"}


def test_a_transaction_is_given_whole_and_in_order(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo select g, 'x' from generate_series(1, 20) g")
    at.source.execute("delete from todo where id > 10")
    at.source.execute("truncate todo")
    at.catch_up()
    found = all_of(at)
    assert keys(found) == [*map(str, range(1, 21)), *map(str, range(11, 21)), None]
    places = [(each.commit_position, each.ordinal) for each in found]
    assert places == sorted(set(places))


def test_any_stop_goes_on_behind_what_was_given(
    tracked: Track, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With pieces of any size, transactions larger than one, and stops at any change."""
    dice = random.Random(seed)
    at = tracked(TODO)
    for first in range(0, 160, 20):
        rows = dice.choice([1, 2, 3, 20])
        at.source.execute(
            "insert into todo select g, repeat('x', %s) from generate_series(%s::int, %s) g",
            [dice.choice([1, 2000]), first, first + rows - 1],
        )
    at.catch_up()
    expected = [
        row["id"]
        for row in at.query("select id from bemi.changes order by epoch, commit_position, ordinal")
    ]
    for window in (1, 7, 1000):
        monkeypatch.setattr(log, "WINDOW", window)
        monkeypatch.setattr(feed, "PIECE_BYTES", dice.choice([1, 3000, 10**6]))
        found: list[uuid.UUID] = []
        start = "beginning"
        while True:
            limit = dice.randint(1, 60)
            with bemi.stream(
                at.settings.destination_url, start=start, until_caught_up=True, limit=limit
            ) as changes:
                given = [each.id for each in changes]
                start = changes.cursor
            found += given
            if len(given) < limit:
                break
        assert found == expected, f"window {window}"


def test_each_loop_goes_on_where_the_last_one_ended(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo select g, 'x' from generate_series(1, 3) g")
    at.catch_up()
    with bemi.stream(at.settings.destination_url, start="beginning", timeout=0) as changes:
        for change in changes:
            assert change.primary_key == "1"
            break
        assert [each.primary_key for each in changes] == ["2", "3"]
        assert [*changes] == []
        at.source.execute("insert into todo values (4, 'x')")
        at.catch_up()
        assert [each.primary_key for each in changes] == ["4"]
    assert [*changes] == []


def test_filters_move_the_cursor_over_what_they_keep_back(tracked: Track) -> None:
    at = tracked(TODO, "create table other (id int primary key)")
    at.source.execute("insert into todo select g, 'x' from generate_series(1, 10) g")
    at.source.execute("insert into other values (1)")
    at.catch_up()
    (stored,) = at.query("select position from bemi.checkpoints")
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"table": "nothing"}, []),
        ({"table": "todo", "key": 7}, ["7"]),
        ({"context": {"user_id": 1}}, []),
        ({"after": {"task": "x"}, "key": 1, "operation": "create"}, ["1"]),
    ]
    for filters, expected in cases:
        with bemi.stream(
            at.settings.destination_url, start="beginning", until_caught_up=True, **filters
        ) as changes:
            assert [each.primary_key for each in changes] == expected
            (place,) = Cursor.parse(changes.cursor).places.values()
        assert (place.commit, place.ordinal) == (stored["position"], 0)


def test_a_stream_with_a_timeout_ends_though_all_is_filtered_out(tracked: Track) -> None:
    at = tracked(TODO)
    with (
        bemi.stream(at.settings.destination_url, key=0, timeout=0.2) as changes,
        capturing(at.settings),
    ):
        busy = threading.Event()

        def write() -> None:
            number = 0
            with at.connect() as conn:
                while not busy.is_set():
                    number += 1
                    conn.execute("insert into todo values (%s, 'x')", [number])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            assert [*changes] == []
        finally:
            busy.set()
            thread.join()


def test_where_a_stream_begins(tracked: Track) -> None:
    at = tracked(TODO)
    for number in range(1, 5):
        at.source.execute("insert into todo values (%s, 'x')", [number])
    at.catch_up()
    second = all_of(at)[1]
    ways: dict[Any, list[str]] = {
        "beginning": ["1", "2", "3", "4"],
        second.id: ["3", "4"],
        str(second.id): ["3", "4"],
        str(Lsn(second.commit_position)): ["3", "4"],
        second.committed_at: ["3", "4"],
        second.committed_at - timedelta(days=1): ["1", "2", "3", "4"],
        datetime.now(UTC): [],
        "now": [],
        None: [],
    }
    for start, expected in ways.items():
        with bemi.stream(at.settings.destination_url, start=start, until_caught_up=True) as changes:
            assert [each.primary_key for each in changes] == expected, start


def test_now_is_when_the_stream_was_made(tracked: Track) -> None:
    at = tracked(TODO)
    with bemi.stream(at.settings.destination_url, timeout=0) as changes:
        at.source.execute("insert into todo values (1, 'x')")
        at.catch_up()
        assert [each.primary_key for each in changes] == ["1"]


def test_what_means_nothing_is_refused(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo values (1, 'x')")
    at.catch_up()
    url = at.settings.destination_url
    for start in (
        "",
        "yesterdayish",
        "=1:0/1:0:0",
        "a=1:0/1:0",
        "a=1:FFFFFFFF/1:0:0",
        "a=99999999999:0/1:0:0",
        "source=1:0/1:0:0,,",
        "\0",
        "'; drop table bemi.row_changes; --",
        "9999-12-31",
        7,
    ):
        with pytest.raises(UsageError):
            bemi.stream(url, start=start)  # type: ignore[arg-type]
    for filters in (
        {"oldest_first": True},
        {"behind": "x"},
        {"tabel": "todo"},
        {"after": "a=1:0/1:0:0"},
        {"timeout": -1},
        {"timeout": "soon"},
        {"source": "nobody"},
        {"limit": 0},
    ):
        with pytest.raises(UsageError):
            bemi.stream(url, **filters)
    with pytest.raises(NotYetError, match="not captured yet"):
        bemi.stream(url, start="FF/0")
    with (
        bemi.stream(url, start=f"{at.settings.source}=77:0/1:0:0") as changes,
        pytest.raises(UsageError, match="another history"),
    ):
        next(iter(changes))
    # Of another history, whose sources have other names, or whose log is further.
    for cursor in ("stranger=1:0/1:0:0", f"{at.settings.source}=1:7FFFFFFF/0:0:0"):
        with pytest.raises(UsageError, match=r"of another history|ahead of the history"):
            bemi.stream(url, start=cursor)
    with pytest.raises(SetupError):
        bemi.stream(url, schema="no'\"; drop schema bemi; --")


@pytest.mark.parametrize(
    "name", ["o'b\"; drop table t; --", "tab%s,=:&", "\u202erabbit", "🐇" * 15 + "abc"]
)
def test_hostile_names(make_database: MakeDatabase, name: str) -> None:
    url = make_database()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("create table {0} ({0} int primary key)").format(sql.Identifier(name)))
        at = Tracked(track(url, make_database(), schemas=("*",), source=name))
        conn.execute(sql.SQL("insert into {} values (7)").format(sql.Identifier(name)))
        at.catch_up()
        (change,) = all_of(at, table=f"public.{name}", source=name, after={name: 7})
        assert change.after == {name: 7}
        with bemi.stream(at.settings.destination_url) as changes:
            assert changes.cursor.isascii()
            assert [*Cursor.parse(changes.cursor).places] == [name]
        at.close()


@pytest.mark.parametrize("schema", ["bemi", "s" * 63, '"; drop schema x; -- ' * 3, "🐇" * 15])
def test_each_history_has_its_channel(destination_url: str, schema: str) -> None:
    with psycopg.connect(destination_url, autocommit=True) as conn:
        listener = notices.Listener(conn, schema)
        listener.start()
        with psycopg.connect(destination_url) as other:
            notices.tell(other, "another")
            notices.tell(other, schema)
        (told,) = conn.notifies(timeout=30, stop_after=1)
        assert told.channel == notices.channel(schema)
        listener.stop()


def test_cursors_are_read_as_they_are_written() -> None:
    for places in (
        {},
        {"shop": LogPlace(1, 0, 0, 0)},
        {"a,b=c:d%": LogPlace(2, (1 << 63) - 1, 7, 3), "ü\u202e": LogPlace(1, 5)},
    ):
        cursor = Cursor(places)
        assert Cursor.parse(str(cursor)) == cursor


# --- several sources -------------------------------------------------------------------------


@pytest.fixture
def two(make_database: MakeDatabase) -> Iterator[list[Tracked]]:
    """Two sources in one history."""
    destination = make_database()
    made = []
    for name in ("one", "two"):
        url = make_database()
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(TABLE)
        made.append(Tracked(track(url, destination, schemas=("*",), source=name)))
    yield made
    for each in made:
        each.close()


def test_two_sources_take_turns_and_have_one_cursor(
    two: list[Tracked], monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in range(1, 40, 10):
        for at in two:
            at.source.execute(
                "insert into note select g, 'x' from generate_series(%s::int, %s) g",
                [first, first + 9],
            )
    for at in two:
        at.catch_up()
    monkeypatch.setattr(log, "WINDOW", 10)
    found: list[tuple[str, str | None]] = []
    start = "beginning"
    for limit in (33, 1, 100):
        with bemi.stream(
            two[0].settings.destination_url, start=start, until_caught_up=True, limit=limit
        ) as changes:
            found += [(each.source, each.primary_key) for each in changes]
            start = changes.cursor
    for name in ("one", "two"):
        assert [key for source, key in found if source == name] == [*map(str, range(1, 41))]
    assert {source for source, _ in found[:25]} == {"one", "two"}
    only = all_of(two[0], source="two")
    assert [each.source for each in only] == ["two"] * 40
    for options in ({"start": "0/1"}, {"from_position": "0/1"}):
        with pytest.raises(UsageError, match=r"several sources|one source"):
            bemi.stream(two[0].settings.destination_url, **options)  # type: ignore[arg-type]


def test_a_source_that_comes_later_is_read_from_its_beginning(two: list[Tracked]) -> None:
    one, other = two
    with bemi.stream(one.settings.destination_url) as changes:
        cursor = ",".join(p for p in changes.cursor.split(",") if p.startswith("one="))
    other.source.execute("insert into note values (1, 'x')")
    other.catch_up()
    with bemi.stream(one.settings.destination_url, start=cursor, until_caught_up=True) as changes:
        assert [each.source for each in changes] == ["two"]


# --- baselines --------------------------------------------------------------------------------


def test_rows_of_baselines_are_given_only_when_asked_for(tracked: Track) -> None:
    at = tracked(TODO, "insert into todo select g, 'x' from generate_series(1, 5) g")
    taking.take(at.settings)
    at.source.execute("insert into todo values (6, 'x')")
    at.catch_up()
    assert [each.operation for each in all_of(at)] == ["CREATE"]
    assert [each.operation for each in all_of(at, baseline=True)] == ["SNAPSHOT"] * 5 + ["CREATE"]
    assert len(all_of(at, operation="snapshot")) == 5


def test_a_baseline_that_is_being_taken_keeps_its_place(tracked: Track) -> None:
    """Its rows are stored behind what the history has by then, and must not be passed by."""
    at = tracked(TODO, "insert into todo values (1, 'x')")
    at.catch_up()
    url = at.settings.destination_url
    (source,) = at.query("select source_id from bemi.sources")
    with (
        bemi.stream(url, baseline=True, timeout=0) as asking,
        bemi.stream(url, timeout=0) as others,
        psycopg.connect(url, autocommit=True) as taker,
    ):
        assert baselines.claim(taker, "bemi", source["source_id"])
        baselines.ask(taker, "bemi", source["source_id"], baselines.intervals(taker, "bemi", 1))
        at.source.execute("insert into todo values (2, 'x')")
        at.catch_up()
        assert [*asking] == []
        assert keys([*others]) == ["2"]
        taker.close()
        taking.take(at.settings)
        found = [*asking]
        assert [each.operation for each in found] == ["CREATE", "SNAPSHOT", "SNAPSHOT"]
        places = [each.commit_position for each in found]
        assert places == sorted(places)


def test_no_row_of_a_baseline_comes_behind_what_is_newer(tracked: Track, seed: int) -> None:
    """While it is taken in many chunks, and the application writes on."""
    dice = random.Random(seed)
    at = tracked(TODO, "insert into todo select g, 'x' from generate_series(1, 100) g")
    at.catch_up()
    url = at.settings.destination_url
    found: list[Change] = []
    taken = threading.Event()

    def write() -> None:
        with at.connect() as conn:
            while not taken.is_set():
                conn.execute(
                    "update todo set task = task || '.' where id = %s", [dice.randint(1, 100)]
                )

    with (
        bemi.stream(url, baseline=True) as changes,
        capturing(at.settings),
        ThreadPoolExecutor() as threads,
    ):
        reading = threads.submit(lambda: found.extend(changes))
        writing = threads.submit(write)
        try:
            taking.take(at.settings, rows=7)
        finally:
            taken.set()
            writing.result(30)
        at.catch_up()
        (stored,) = at.query("select count(*) as n from bemi.changes")
        until(lambda: len(found) == stored["n"], 30, "all is given")
        changes.close()
        reading.result(30)
    expected = at.query("select id from bemi.changes order by epoch, commit_position, ordinal")
    assert [each.id for each in found] == [row["id"] for row in expected]
    assert sum(each.operation == "SNAPSHOT" for each in found) > 0


# --- what is missing --------------------------------------------------------------------------


def test_missing_changes_are_told_before_what_lies_behind_them(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo values (1, 'x')")
    at.catch_up()
    at.source.execute("insert into todo values (2, 'lost')")
    at.skip_ahead()
    with pytest.raises(GapError):
        at.catch_up()
    url = at.settings.destination_url
    with bemi.stream(url, start="beginning", timeout=0) as changes:
        assert keys([*changes]) == ["1"]  # what is missing is not decided on yet
        before = changes.cursor
        at.catch_up(accept_gap=True)
        at.source.execute("insert into todo values (3, 'x')")
        at.catch_up()
        with pytest.raises(bemi.MissingChangesError, match=r"missing .*\(slot_ahead\)") as found:
            next(iter(changes))
        assert (found.value.source, found.value.table) == (at.settings.source, None)
        assert found.value.cause == "slot_ahead"
        behind = changes.cursor
        assert keys([*changes]) == ["3"]
    told: list[bemi.MissingChangesError] = []
    for start, times in ((before, 1), (before, 2), (behind, 2), ("beginning", 3), ("now", 3)):
        with bemi.stream(url, start=start, until_caught_up=True, on_gap=told.append) as changes:
            found_keys = keys([*changes])
        assert len(told) == times, start
        assert found_keys == {"beginning": ["1", "3"], "now": []}.get(start, ["3"])


def test_a_new_epoch_goes_on_behind_what_is_missing(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo values (1, 'x')")
    at.catch_up()
    at.query("update bemi.epochs set timeline = timeline + 7 returning epoch")
    at.catch_up(accept_gap=True)
    at.source.execute("insert into todo values (2, 'x')")
    at.catch_up()
    told: list[bemi.MissingChangesError] = []
    found = all_of(at, on_gap=told.append)
    assert [(each.primary_key, each.epoch) for each in found] == [("1", 1), ("2", 2)]
    assert [each.cause for each in told] == ["epoch_changed"]


def test_of_a_table_that_is_not_captured_any_more_it_is_told(tracked: Track) -> None:
    """Also where that is found out when the stream is past the place already."""
    at = tracked(TODO, "create table other (id int primary key)")
    at.source.execute("insert into todo values (1, 'x')")
    at.catch_up()
    url = at.settings.destination_url
    with (
        bemi.stream(url, table="todo", timeout=0) as todos,
        bemi.stream(url, table="other", timeout=0) as others,
    ):
        at.source.execute("insert into other values (1)")
        at.catch_up()
        assert keys([*others]) == ["1"]
        assert [*todos] == []
        early = todos.cursor
        at.source.execute("alter publication bemi drop table todo")
        at.source.execute("insert into other values (2)")
        with capturing(at.settings):
            until_closed(at)
        at.catch_up()
        assert keys([*others]) == ["2"]
        with pytest.raises(bemi.MissingChangesError, match=r"public\.todo") as found:
            next(iter(todos))
        assert (found.value.table, found.value.cause) == ("public.todo", "untracked")
        assert [*todos] == []
        late = todos.cursor
    with bemi.stream(url, table="todo", start=late, timeout=0) as todos:
        assert [*todos] == []
    with bemi.stream(url, table="todo", start=early, timeout=0) as todos:
        with pytest.raises(bemi.MissingChangesError):
            next(iter(todos))


def until_closed(at: Tracked) -> None:
    until(
        lambda: at.query("select from bemi.intervals where closed = 'untracked'"),
        30,
        "the worker sees that the table is not in the publication",
    )


# --- connections ------------------------------------------------------------------------------


def end_sessions(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " and application_name = 'bemi'"
        ).rowcount


def test_a_connection_that_breaks_is_opened_again(
    tracked: Track, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log, "WINDOW", 5)
    at = tracked(TODO)
    at.source.execute("insert into todo select g, 'x' from generate_series(1, 20) g")
    at.catch_up()
    url = at.settings.destination_url
    found = []
    with bemi.stream(url, start="beginning", timeout=30, limit=21) as changes:
        for change in changes:
            found.append(change)
            if len(found) in (1, 6, 12):
                assert end_sessions(url)
            if len(found) == 20:
                at.source.execute("insert into todo values (21, 'x')")
                at.catch_up()
    assert keys(found) == [*map(str, range(1, 22))]
    assert "waiting" in caplog.text


def test_through_a_pooler_that_swallows_notices(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late, but whole; over one connection that all its clients share."""
    monkeypatch.setattr(feed, "LONGEST_WAIT", 0.1)
    at = tracked(TODO)
    with (
        pooled(at.settings.destination_url, "transaction") as url,
        bemi.stream(url, timeout=30) as one,
        bemi.stream(url, timeout=30) as another,
    ):
        found = [iter(one), iter(another)]
        for number in range(3):
            at.source.execute("insert into todo values (%s, 'x')", [number])
            at.catch_up()
            assert [next(each).primary_key for each in found] == [str(number)] * 2


def test_close_ends_a_loop_that_waits(tracked: Track) -> None:
    at = tracked(TODO)
    changes = bemi.stream(at.settings.destination_url)
    with ThreadPoolExecutor() as threads:
        waiting_loop = threads.submit(lambda: [*changes])
        until_listening(at)
        changes.close()
        assert waiting_loop.result(30) == []
    changes.close()


def until_listening(at: Tracked) -> None:
    until(
        lambda: at.query(
            "select from pg_stat_activity where datname = current_database()"
            " and state = 'idle' and wait_event = 'ClientRead' and application_name = 'bemi'"
        ),
        30,
        "the stream waits",
    )


def test_who_does_not_wait_does_not_listen(tracked: Track) -> None:
    """Else a consumer that stands still would hold up the server's queue of notices."""
    at = tracked(TODO)
    with bemi.stream(at.settings.destination_url, timeout=30) as changes, capturing(at.settings):
        found = iter(changes)
        at.source.execute("insert into todo values (1, 'x')")
        next(found)
        (session,) = at.query(
            "select query from pg_stat_activity where datname = current_database()"
            " and application_name = 'bemi' and query ilike '%%listen%%'"
            " and pid <> pg_backend_pid()"
        )
        assert session["query"].startswith("unlisten")


def test_exactly_once_with_the_cursor_in_the_application_s_transaction(
    tracked: Track, make_database: MakeDatabase, seed: int
) -> None:
    """Whatever fails between a change and the commit of what it led to."""
    dice = random.Random(seed)
    at = tracked(TODO)
    for number in range(25):
        at.source.execute("insert into todo values (%s, 'x')", [number])
    at.catch_up()

    class CrashError(Exception):
        pass

    with psycopg.connect(make_database(), autocommit=True) as app:
        app.execute("create table effect (n int generated always as identity, key text)")
        app.execute("create table place (cursor text)")
        app.execute("insert into place values ('beginning')")

        def consume() -> None:
            row = app.execute("select cursor from place").fetchone()
            assert row is not None
            with bemi.stream(
                at.settings.destination_url, start=row[0], until_caught_up=True
            ) as changes:
                for change in changes:
                    with app.transaction():
                        app.execute("insert into effect (key) values (%s)", [change.primary_key])
                        if dice.random() < 0.1:
                            raise CrashError
                        app.execute("update place set cursor = %s", [changes.cursor])
                        if dice.random() < 0.1:
                            raise CrashError
                    if dice.random() < 0.1:
                        raise CrashError

        crashes = 0
        while True:
            try:
                consume()
                break
            except CrashError:
                crashes += 1
        effects = app.execute("select key from effect order by n").fetchall()
    assert [key for (key,) in effects] == [*map(str, range(25))]
    assert crashes


# --- waiting for a state ----------------------------------------------------------------------


def test_a_state_that_is_not_captured_yet_is_waited_for(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo values (1, 'x')")
    at.catch_up()

    def position() -> str:
        row = at.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])

    def now() -> datetime:
        row = at.source.execute("select clock_timestamp()").fetchone()
        assert row is not None
        found: datetime = row[0]
        return found

    with bemi.History(at.settings.destination_url) as history, ThreadPoolExecutor() as threads:
        moments: list[Callable[[], str | datetime]] = [position, now]
        for number, moment in enumerate(moments, start=2):
            at.source.execute("insert into todo values (%s, 'x')", [number])
            when = moment()
            for wait in (False, 0.05):
                with pytest.raises(NotYetError):
                    [*history.at(when, "todo", wait=wait)]
            asked = threads.submit(lambda when=when: [*history.at(when, "todo", wait=60)])  # type: ignore[misc]
            at.source.execute("insert into todo values (%s, 'x')", [number + 10])
            at.catch_up()
            assert str(number) in {row.key for row in asked.result(60)}
            assert str(number + 10) not in {row.key for row in asked.result(60)}
