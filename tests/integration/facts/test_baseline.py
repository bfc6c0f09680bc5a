"""What a SELECT says of a table beside the stream, and what Bemi's baselines make of that."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bemi.capture.messages import Relation
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import UnknownStateError
from bemi.history.state import state
from bemi.lsn import Lsn
from tests.conftest import SETTINGS
from tests.integration.conftest import Track
from tests.integration.facts.peek import sent
from tests.integration.facts.running import Running
from tests.integration.facts.stream import active, kinds, number, peek, whole
from tests.support.baselines import Recorder, assert_same, assert_state, take
from tests.support.late_commits import LATE_COMMITS, LateCommit
from tests.support.tracked import Row, Tracked
from tests.support.tracking import track
from tests.support.waiting import until

Connection = psycopg.Connection[Any]

TODOS: Final = (
    "create table todos (id int primary key, title text)",
    "insert into todos select g, 'old' from generate_series(1, 5) g",
)


def snapshots(at: Tracked) -> list[Row]:
    """The rows that baselines stored, in the order of the history."""
    rows = at.query("select * from bemi.changes order by epoch, commit_position, ordinal")
    return [row for row in rows if row["operation"] == "SNAPSHOT"]


def state_at(at: Tracked, table: str, position: int) -> Counter[str]:
    """The table's rows at a position, going by the history; each spelled as JSON."""
    with psycopg.connect(at.settings.destination_url) as conn:
        rows = state(conn, "bemi", at.settings.source, f"public.{table}", Lsn(position))
        return Counter(json.dumps(json.loads(bytes(row.image)), sort_keys=True) for row in rows)


def counted(conn: Connection, query: str) -> int:
    row = conn.execute(f"select count(*) from {query}".encode()).fetchone()
    assert row is not None
    return int(row[0])


# --- the place of a baseline -----------------------------------------------------------------


@pytest.fixture
def with_late_commits(postgres_bin: Path | None) -> Iterator[Tracked]:
    """A source in which a transaction may be in the log before anybody sees it."""
    with Server(settings={**SETTINGS, **LATE_COMMITS}, bin=postgres_bin) as own:
        url = own.create_database("source")
        with psycopg.connect(url, autocommit=True) as conn:
            for statement in TODOS:
                conn.execute(statement.encode())
        at = Tracked(track(url, own.create_database("destination"), schemas=("*",)))
        yield at
        at.close()


@pytest.mark.parametrize("worker", [True, False], ids=["beside a worker", "without a worker"])
def test_an_lsn_read_beside_a_snapshot_is_not_its_boundary(
    with_late_commits: Tracked, worker: bool
) -> None:
    """A commit can be in the log, before that position, and not in the snapshot, which tells it
    by its id. So a baseline goes by ids, and its place is one where no transaction commits."""
    at = with_late_commits
    name = f"{at.settings.slot}_raw"
    at.source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    with ExitStack() as stack:
        if worker:
            stack.enter_context(Running(at.settings))
            until(lambda: active(at.source, at.settings.slot), 60, "the worker holds the slot")
        late = LateCommit(
            at.settings.source_url,
            "update todos set title = 'new' where id = 1",
            "delete from todos where id = 2",
            "insert into todos values (6, 'new')",
        )
        with at.source.transaction():
            at.source.execute("set transaction isolation level repeatable read")
            beside = number(at.source, "pg_current_wal_insert_lsn()")
            row = at.source.execute(
                "select pg_visible_in_snapshot(%s::text::xid8, pg_current_snapshot())", [late.xid]
            ).fetchone()
            seen = at.source.execute("select id, title from todos order by id").fetchall()
        *_, begin, commit = [frame for frame in peek(at.source, name) if frame.kind in "BC"]
        assert begin.xid == late.xid
        assert commit.commit[1] <= beside, "by the log it committed before"
        assert seen == [(key, "old") for key in range(1, 6)]
        assert row == (False,), "by the snapshot it did not"

        released: list[int] = []

        def release(_name: str, done: int) -> None:
            if not released:
                released.append(done)
                late.release()

        (result,) = take(at.settings, recorder=Recorder(release))
        assert (result.error, released) == (None, [result.rows])
        at.source.execute("insert into todos values (7, 'later')")
    at.catch_up()

    stored = snapshots(at)
    assert [each["primary_key"] for each in stored] == ["3", "4", "5"]
    (place,) = {each["commit_position"] for each in stored}
    frames = whole(peek(at.source, name))
    assert place > commit.commit[0]
    assert place not in {frame.commit[0] for frame in frames if frame.kind == "C"}
    # Inside of the record of its own message, behind which another one ends it.
    (opens,) = [n for n, frame in enumerate(frames) if (frame.kind, frame.lsn) == ("M", place + 1)]
    assert kinds(frames[opens : opens + 4]) == "MBMC"
    assert all(b"_bemi_baseline\0" in frames[opens + n].data for n in (0, 2))
    assert place < frames[opens + 3].commit[0]
    assert state_at(at, "todos", place) == Counter(
        json.dumps({"id": key, "title": title})
        for key, title in ((1, "new"), (3, "old"), (4, "old"), (5, "old"), (6, "new"))
    )
    assert_same(at.settings, "public.todos")
    assert_state(at.settings, "public.todos")


# --- who reads -------------------------------------------------------------------------------


@pytest.fixture
def limited(tracked: Track) -> Iterator[tuple[Tracked, Settings]]:
    """A table whose policy shows two of its rows, and settings of a role that it holds for."""
    at = tracked(
        *TODOS,
        "create policy two on todos using (id <= 2)",
        "alter table todos enable row level security",
    )
    name = f"limited_{at.source.info.dbname}"
    role = sql.Identifier(name)
    at.source.execute(sql.SQL("create role {} login replication password 'x'").format(role))
    at.source.execute(sql.SQL("grant select on todos to {}").format(role))
    url = make_conninfo(at.settings.source_url, user=name, password="x")
    yield at, dataclasses.replace(at.settings, source_url=url)
    at.source.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))


def test_row_level_security_filters_a_select_silently(limited: tuple[Tracked, Settings]) -> None:
    """`row_security = off` makes it fail instead: the baseline is refused, with what mends it."""
    at, settings = limited
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        assert conn.execute("select id from todos order by id").fetchall() == [(1,), (2,)]
        conn.execute("set row_security to off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            conn.execute("select id from todos")

    with Running(at.settings):
        until(lambda: active(at.source, at.settings.slot), 60, "the worker holds the slot")
        (refused,) = take(settings)
        assert "row-level security of public.todos would hide rows" in (refused.error or "")
        assert snapshots(at) == []
        with pytest.raises(UnknownStateError):
            state_at(at, "todos", number(at.source, "pg_current_wal_insert_lsn()"))

        mending, _, who = (refused.fix or "").partition(";")
        assert "superuser" in who
        at.source.execute(mending.encode())
        (result,) = take(settings)
        assert (result.error, result.rows) == (None, 5)
    assert [each["primary_key"] for each in snapshots(at)] == ["1", "2", "3", "4", "5"]
    assert_same(at.settings, "public.todos")


# --- what a SELECT gives that the stream does not --------------------------------------------


def test_a_select_has_the_rows_of_partitions_and_children(tracked: Track) -> None:
    """Each is read by itself, with ONLY: no row is stored twice, or as another table's."""
    at = tracked(
        "create table events (id int, day int, primary key (id, day)) partition by list (day)",
        "create table events_1 partition of events for values in (1)",
        "create table events_2 partition of events for values in (2)",
        "create table animals (id int primary key, name text)",
        "create table dogs (bark text, primary key (id)) inherits (animals)",
        "create table cats () inherits (animals)",  # it has no key, and is not tracked
        "insert into events values (1, 1), (2, 2), (3, 2)",
        "insert into animals values (1, 'one')",
        "insert into dogs values (1, 'Rex', 'wuff'), (2, 'Bo', 'wau')",
        "insert into cats values (1, 'Tom')",
    )
    assert [counted(at.source, each) for each in ("events", "only events")] == [3, 0]
    assert [counted(at.source, each) for each in ("animals", "only animals")] == [4, 1]

    results = {result.table: result.rows for result in take(at.settings)}
    assert results == {
        "public.events_1": 1,
        "public.events_2": 2,
        "public.animals": 1,
        "public.dogs": 2,
    }
    stored = [(each["table"], each["primary_key"], each["after"]) for each in snapshots(at)]
    assert sorted(stored, key=str) == [
        ("animals", "1", {"id": 1, "name": "one"}),
        ("dogs", "1", {"id": 1, "name": "Rex", "bark": "wuff"}),
        ("dogs", "2", {"id": 2, "name": "Bo", "bark": "wau"}),
        ("events", '["1","1"]', {"id": 1, "day": 1}),
        ("events", '["2","2"]', {"id": 2, "day": 2}),
        ("events", '["3","2"]', {"id": 3, "day": 2}),
    ]
    assert_same(at.settings, "public.events_1", "public.events_2", "public.animals", "public.dogs")


def test_a_select_has_generated_columns_that_the_stream_does_not_have(tracked: Track) -> None:
    """Stored ones are not sent before 18, virtual ones never: what is not sent is not stored."""
    at = tracked(
        "create table boxes (id int primary key, w int,"
        " area int generated always as (w * w) stored, note text)",
        "insert into boxes values (1, 2, default, 'a')",
    )
    version = at.source.info.server_version
    if version >= 180000:
        at.source.execute("alter table boxes add half int generated always as (w / 2) virtual")
    selected = at.source.execute("select * from boxes").description or []
    take(at.settings)
    at.source.execute("update boxes set note = 'b'")
    (announced,) = sent(at, Relation)
    assert [each.name for each in announced.columns] == (
        ["id", "w", *(["area"] if version >= 180000 else []), "note"]
    )
    virtual = ["half"] if version >= 180000 else []
    assert [each.name for each in selected] == ["id", "w", "area", "note", *virtual]

    at.catch_up()
    (snapshot,) = snapshots(at)
    (update,) = at.query("select * from bemi.changes where operation = 'UPDATE'")
    assert snapshot["flags"] is None
    assert set(snapshot["after"]) == {each.name for each in announced.columns}
    assert update["after"] == {**snapshot["after"], "note": "b"}  # of the stream, every column
    assert update["flags"] is None


def test_a_select_spells_values_as_the_role_likes(tracked: Track) -> None:
    """They are read under the settings of the stream, and are the same text."""
    at = tracked(
        "create table t (id int primary key, at timestamptz, day date, span interval, data bytea,"
        " f float8)",
        "insert into t values (1, '2024-02-01 12:00+00', '2024-02-01', '1 day', '\\x00ff',"
        " 0.1::float8 * 3)",
        full=["*.*"],
    )
    for setting in (
        "datestyle to 'SQL, DMY'",
        "intervalstyle to iso_8601",
        "bytea_output to escape",
        "timezone to 'Asia/Kolkata'",
        "extra_float_digits to -10",
    ):
        statement = sql.SQL("alter database {} set " + setting)
        at.source.execute(statement.format(sql.Identifier(at.source.info.dbname)))
    with at.connect() as odd:
        row = odd.execute("select at::text, day::text, span::text, data::text, f::text from t")
        assert row.fetchone() == (
            "01/02/2024 17:30:00 IST",
            "01/02/2024",
            "P1D",
            "\\000\\377",
            "0.3",
        )

    take(at.settings)
    at.source.execute("update t set id = id")
    at.catch_up()
    (snapshot,) = snapshots(at)
    (update,) = at.query("select * from bemi.changes where operation = 'UPDATE'")
    assert snapshot["after"] == update["before"] == update["after"]
    assert snapshot["after"] == {
        "id": 1,
        "at": "2024-02-01 12:00:00+00",
        "day": "2024-02-01",
        "span": "1 day",
        "data": "\\x00ff",
        "f": Decimal("0.30000000000000004"),
    }


# --- tables without a key --------------------------------------------------------------------


def test_a_table_without_a_key_can_not_be_paged(tracked: Track) -> None:
    """No order goes on behind a row: equal ones are skipped, by place they come twice. It is read
    in one piece; what it held at a time is what came until then, less what went."""
    at = tracked(
        "create table log (line text)",
        "insert into log values ('a'), ('a'), ('a'), ('b'), ('c')",
        full=["*.*"],
    )
    (first,) = at.source.execute("select line from log order by line limit 1").fetchall()
    assert counted(at.source, f"log where line > '{first[0]}'") == 2, (
        "not four: equal ones are skipped"
    )
    with at.source.transaction(force_rollback=True):
        read = at.source.execute("select ctid::text, line from log order by ctid").fetchall()
        at.source.execute("update log set line = 'z' where ctid = %s::tid", [read[0][0]])
        last = read[-1][0]
        again = at.source.execute("select line from log where ctid > %s::tid", [last]).fetchall()
        assert again == [("z",)], "a row that was read already"

    (result,) = take(at.settings, rows=2)
    assert (result.error, result.rows) == (None, 5)
    stored = snapshots(at)
    assert [each["after"]["line"] for each in stored] == ["a", "a", "a", "b", "c"]
    assert [each["primary_key"] for each in stored] == [None] * 5
    (place,) = {each["commit_position"] for each in stored}
    assert len({each["xmin"] for each in at.query("select xmin::text from bemi.row_changes")}) == 1

    for statement in (
        "delete from log where ctid = (select min(ctid) from log where line = 'a')",
        "update log set line = 'b' where ctid = (select min(ctid) from log where line = 'a')",
        "insert into log values ('c')",
        "truncate log",
        "insert into log values ('d')",
    ):
        at.source.execute(statement.encode())
    at.catch_up()
    places = [
        row["commit_position"]
        for row in at.query("select * from bemi.changes where commit_position > %s", [place])
    ]
    held = [state_at(at, "log", each) for each in [place, *sorted(places)]]
    assert held == [
        Counter(json.dumps({"line": line}) for line in lines)
        for lines in ("aaabc", "aabc", "abbc", "abbcc", "", "d")
    ]
    with pytest.raises(UnknownStateError):
        state_at(at, "log", place - 1)
    assert_same(at.settings, "public.log")
