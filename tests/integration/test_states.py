"""The functions of the destination that tell states, for any SQL client."""

from typing import Any

import psycopg
import pytest
from psycopg import sql

import bemi
from bemi.errors import UsageError
from bemi.lsn import Lsn
from bemi.store.grants import grant
from tests.integration.conftest import Track
from tests.support.tracked import Row, Tracked

TABLE = "create table todo (id int primary key, task text, price numeric, tags text[])"

HOSTILE = [
    "'; drop table todo; --",
    '"; drop schema bemi cascade; --',
    "%s %1$s %I",
    "{}",
    "\\",
    "$query$",
    "a'b\"c",
    "\u202e",
    "x" * 63,
    "木",
]


def rows(at: Tracked, call: str, *parameters: object) -> list[Row]:
    return at.query(f"select * from bemi.{call} order by image::text", parameters)


@pytest.fixture
def todo(tracked: Track) -> Tracked:
    at = tracked(TABLE)
    at.source.execute("insert into todo values (1, 'milk', 1.10, '{a}'), (2, 'oats', null, null)")
    at.source.execute("update todo set task = 'oat milk', id = 3 where id = 1")
    at.source.execute("delete from todo where id = 2")
    at.catch_up()
    return at


def test_a_table_and_a_row_as_they_were(todo: Tracked) -> None:
    created, *_, changed, deleted = todo.changes()
    first = rows(todo, "rows_at('todo', commit_position => %s)", created["commit_position"])
    assert [(row["key"], row["image"]["task"], row["flags"]) for row in first] == [
        ("1", "milk", None),
        ("2", "oats", None),
    ]
    for call, parameter in (
        ("rows_at('public.todo', %s)", changed["committed_at"]),
        ("rows_at('todo', at => %s, source => %s)", changed["committed_at"]),
        ("rows_at('todo', lsn => bemi.lsn(%s))", changed["commit_position"]),
        ("rows_at('todo', commit_position => %s, epoch => 1)", changed["commit_position"]),
    ):
        given = [parameter, changed["source"]][: call.count("%s")]
        assert [row["key"] for row in rows(todo, call, *given)] == ["2", "3"]
    at = "commit_position => %s"
    position = changed["commit_position"]
    for key, tasks in (("1", []), ("2", ["oats"]), ("3", ["oat milk"]), ("4", [])):
        found = rows(todo, f"row_at('todo', %s, {at})", key, position)
        assert [row["image"]["task"] for row in found] == tasks
    (left,) = rows(todo, f"rows_at('todo', {at})", deleted["commit_position"])
    (same,) = rows(todo, f"row_at('todo', '3', {at})", deleted["commit_position"])
    assert (left["key"], left["image"]) == ("3", same["image"])


def test_an_image_of_a_state_becomes_a_row(todo: Tracked) -> None:
    todo.destination.execute(
        "create temporary table todo (id int, task text, price numeric, tags text[])"
    )
    created, *_ = todo.changes()
    found = todo.query(
        "select p.* from bemi.rows_at('todo', %s) r,"
        " bemi.populate(null::pg_temp.todo, r.image, r.flags) p order by id",
        [created["committed_at"]],
    )
    assert [(row["id"], str(row["price"]), row["tags"]) for row in found] == [
        (1, "1.10", ["a"]),
        (2, "None", None),
    ]


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ("rows_at('nothing', now())", "TT001", "public.nothing is not in the history"),
        ("rows_at(null, now())", "TT002", "it takes the name of a table"),
        ("rows_at('todo')", "TT002", "it takes a time or a position"),
        ("rows_at('todo', now(), commit_position => 5)", "TT002", "are two moments"),
        ("rows_at('todo', {at}, epoch => 1)", "TT002", "a time has no epoch"),
        ("rows_at('todo', now() + interval '1 day')", "TT003", "is not known yet: captured until"),
        ("rows_at('todo', 'infinity')", "TT002", "infinity is no moment"),
        ("rows_at('todo', '2020-01-01')", "TT001", "begins after 2020-01-01 00:00:00 UTC"),
        ("rows_at('todo', lsn => 'FFFF/0')", "TT003", "todo at FFFF/0 is not captured yet"),
        ("rows_at('todo', lsn => 'FFFFFFFF/FFFFFFFF')", "TT003", "is not captured yet"),
        ("rows_at('todo', lsn => '0/0')", "TT001", "not tracked then"),
        ("rows_at('todo', commit_position => -1)", "TT002", "-1 is no moment"),
        ("rows_at('todo', lsn => '0/1', epoch => 99)", "TT002", "has no epoch 99"),
        ("rows_at('todo', now(), source => 'x')", "TT001", "there is no source x"),
        ("row_at('todo', null, 'yesterday')", "TT002", "it takes a key"),
        ("row_at('todo', 'abc', {at})", "TT002", "'abc' is no key of public.todo: its column id"),
        ("row_at('todo', '99999999999', {at})", "TT002", "its column id is of the type integer"),
        ("tables_at(source => 'x', at => now())", "TT001", "there is no source x"),
    ],
)
def test_what_has_no_answer_is_refused(todo: Tracked, call: str, code: str, message: str) -> None:
    (last,) = todo.query("select max(committed_at)::text as at from bemi.changes")
    with pytest.raises(psycopg.Error) as caught:
        todo.query(f"select * from bemi.{call.format(at=repr(last['at']))}")
    assert caught.value.sqlstate == code
    assert message in str(caught.value.diag.message_primary)
    assert caught.value.diag.message_hint


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_and_values_are_data(tracked: Track, value: str) -> None:
    name = sql.Identifier(value)
    created = sql.SQL("create table {} ({} text primary key, {} int)").format(
        name, name, sql.Identifier(f"{value[:60]}2")
    )
    at = tracked(created.as_string())
    at.source.execute(sql.SQL("insert into {} values ({}, 1)").format(name, sql.Literal(value)))
    at.source.execute(sql.SQL("alter table {} add more int").format(name))
    at.source.execute(sql.SQL("insert into {} values ('other', 1, 1)").format(name))
    position = at.changes()[-1]["commit_position"]
    table = f"public.{value}"
    found = rows(at, "rows_at(%s, commit_position => %s)", table, position)
    assert {row["key"] for row in found} == {value, "other"}
    assert {row["image"]["more"] for row in found} == {1, None}
    (row,) = rows(at, "row_at(%s, %s, commit_position => %s)", table, value, position)
    assert row["image"][value] == value
    for call in (
        ("rows_at(%s, now())", f"{value}2"),
        ("row_at(%s, %s, source => %s, at => now())", table, value, value),
        ("source_of(%s)", f"{value}2"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            at.query(f"select * from bemi.{call[0]}", call[1:])
        assert caught.value.sqlstate == "TT001"


def test_a_name_that_two_tables_have_is_refused(tracked: Track) -> None:
    at = tracked(
        'create schema "x.y"',
        "create schema x",
        'create table "x.y".z (id int primary key)',
        'create table x."y.z" (id int primary key)',
    )
    at.source.execute('insert into "x.y".z values (1)')
    at.source.execute('insert into x."y.z" values (2)')
    first, second = (change["commit_position"] for change in at.changes())
    for position in (first, second):
        with pytest.raises(psycopg.Error, match="is the name of several tables") as caught:
            rows(at, "rows_at('x.y.z', commit_position => %s)", position)
        assert caught.value.sqlstate == "TT002"
    with bemi.History(at.settings.destination_url) as history:
        for ask in (
            lambda: history.travel(str(Lsn(second))),
            lambda: history.restore(str(Lsn(second)), "again"),
        ):
            with pytest.raises(UsageError, match="is the name of several tables"):
                ask()


@pytest.mark.parametrize(
    "planted",
    ["array_to_string(text[], text) returns text", "generate_series(int, bigint) returns bigint"],
)
def test_functions_of_others_are_not_called(tracked: Track, planted: str) -> None:
    """`public` may have one that fits the types better than the server's own."""
    at = tracked("create table plain (a int)", "alter table plain replica identity full")
    at.source.execute("insert into plain values (1), (1)")
    position = at.changes()[-1]["commit_position"]
    at.destination.execute(
        f"create function public.{planted} language plpgsql as"
        " $$ begin raise 'called by %', current_user; end $$".encode()
    )
    with bemi.History(at.settings.destination_url) as history:
        assert len([*history.at(str(Lsn(position)), "plain")]) == 2


def test_a_composite_key_however_it_is_spelled(tracked: Track) -> None:
    at = tracked("create table part (a int, b text, n int, primary key (a, b))")
    at.source.execute("insert into part values (1, 'é\"x', 7)")
    position = at.changes()[-1]["commit_position"]
    for key in ('["1","é\\"x"]', '[1, "\\u00e9\\"x"]'):
        (row,) = rows(at, "row_at('part', %s, commit_position => %s)", key, position)
        assert row["image"]["n"] == 7
    for key, message in (("1", "its key are the columns a, b"), ('["x","y"]', "'x' is no key")):
        with pytest.raises(psycopg.Error, match=message):
            rows(at, "row_at('part', %s, commit_position => %s)", key, position)


def test_what_is_not_surely_known_is_refused_or_marked(tracked: Track) -> None:
    at = tracked(TABLE)
    at.source.execute("insert into todo values (1, 'a'), (2, 'b')")
    at.catch_up()
    (held,) = at.query("select source_id, epoch, position from bemi.checkpoints")
    at.source.execute("update todo set task = 'c' where id = 1")
    position = at.changes()[-1]["commit_position"]
    at.query(
        "insert into bemi.gaps (source_id, epoch, from_position, to_position, cause, relation)"
        " select %s, %s, %s - 1, %s, 'ignored', relation from bemi.intervals returning gap_id",
        [held["source_id"], held["epoch"], held["position"], held["position"]],
    )
    call = "rows_at('todo', commit_position => %s{})"
    for doubtful in ("", ", allow_gaps => null"):
        with pytest.raises(psycopg.Error, match="are missing") as caught:
            rows(at, call.format(doubtful), position)
        assert caught.value.sqlstate == "TT001"
    notices: list[str | None] = []
    at.destination.add_notice_handler(lambda told: notices.append(told.message_primary))
    found = rows(at, call.format(", allow_gaps => true"), position)
    assert [(row["key"], row["flags"]) for row in found] == [("1", None), ("2", ["uncertain"])]
    assert "public.todo at" in str(notices[0])
    assert "is not surely known: changes between" in str(notices[0])


def test_a_reader_may_ask_and_sees_nothing_more(todo: Tracked) -> None:
    (last,) = todo.query("select max(committed_at) as at from bemi.changes")
    role = sql.Identifier("reader_of_states")
    with psycopg.connect(todo.settings.destination_url) as conn:
        conn.execute(sql.SQL("create role {}").format(role))
        grant(conn, "bemi", "reader_of_states")
        conn.execute(sql.SQL("set local role {}").format(role))
        for call in ("rows_at('todo', %s)", "row_at('todo', '3', %s)", "tables_at(%s)"):
            found = conn.execute(f"select * from bemi.{call}".encode(), [last["at"]])
            assert len(found.fetchall()) == 1
        for table in ("row_changes", "contexts", "table_versions"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(f"select * from bemi.{table}".encode())
        conn.rollback()


def test_columns_are_those_of_then(tracked: Track) -> None:
    at = tracked("create table t (id int primary key, a text, gone int)")
    at.source.execute("insert into t values (1, 'x', 5), (2, 'y', 6)")
    at.source.execute("alter table t rename a to b")
    at.source.execute("alter table t add c text, drop gone")
    at.source.execute("update t set c = 'z' where id = 1")
    changes = at.changes()
    for position, names in (
        (changes[1]["commit_position"], {"id", "a", "gone"}),
        (changes[-1]["commit_position"], {"id", "b", "c"}),
    ):
        for row in rows(at, "rows_at('t', commit_position => %s)", position):
            assert set(row["image"]) == names
        (table,) = at.query("select * from bemi.tables_at(commit_position => %s)", [position])
        assert {column["name"] for column in table["columns"]} == names
        assert table["primary_key"] == ["id"]
        (row,) = rows(at, "row_at('t', '2', commit_position => %s)", position)
        assert row["image"]["a" if "a" in names else "b"] == "y"


def test_the_last_change_of_each_key_is_found_in_the_index(todo: Tracked) -> None:
    """And a single row by its key, whatever else there is: by what is read, not by the clock."""
    (last,) = todo.query("select max(commit_position) as at from bemi.changes")
    plan: list[Any] = []
    for node in ("seqscan", "bitmapscan", "sort"):
        todo.destination.execute(f"set enable_{node} = off".encode())
    for key in ("", ", key => '3'"):
        (asked,) = todo.query(
            f"select query from bemi.rows_query('todo', commit_position => %s{key})", [last["at"]]
        )
        plan = todo.query(f"explain {asked['query']}")
        text = "\n".join(row["QUERY PLAN"] for row in plan)
        assert "Index Only Scan using row_changes_" in text
        assert "primary_key_commit_position_ordin" in text
