"""With event triggers, what a table had and was called is known at each position, and not only from
the next look at the catalog on. Without them, what can't be known is refused."""

from collections.abc import Callable
from typing import Any

import pytest

import bemi
from bemi.capture.setup import init
from bemi.errors import UnknownStateError
from tests.integration.conftest import Track
from tests.support.tracked import Tracked

Told = list[dict[str, Any]]


@pytest.fixture
def recorded(tracked: Track) -> Callable[..., Tracked]:
    def make(*statements: str) -> Tracked:
        at = tracked(*statements)
        init(at.settings, ddl=True, report=lambda _: None)
        at.catch_up()
        return at

    return make


def run(at: Tracked, *statements: str) -> str:
    """In one transaction, with the worker away. Returns a position that is behind it and before
    whatever comes next."""
    with at.source.transaction():
        for statement in statements:
            at.source.execute(statement.encode())
    row = at.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    at.source.execute("select pg_logical_emit_message(false, 'other', 'space')")
    return str(row[0])


def told(at: Tracked, position: str, table: str = "todo", **more: Any) -> Told:
    with bemi.History(at.settings.destination_url) as history:
        found = [dict(row.values) for row in history.at(position, table, **more)]
    return sorted(found, key=lambda row: int(row["id"]))


def flags(at: Tracked, position: str, table: str = "todo") -> list[tuple[str, ...]]:
    with bemi.History(at.settings.destination_url) as history:
        found = sorted(history.at(position, table), key=lambda row: row.key or "")
    # Of a change whose table the catalog no longer knew when it was read, that stays said.
    return [tuple(flag for flag in row.flags if flag != "inferred") for row in found]


def test_columns_are_those_of_each_position(recorded: Callable[..., Tracked]) -> None:
    """No row is changed behind any of it, and the worker sees it all at once, later."""
    at = recorded("create table todo (id int primary key, task text)")
    places = [
        run(at, "insert into todo values (1, 'milk')"),
        run(at, "alter table todo add done boolean"),
        run(at, "alter table todo rename done to ready", "alter table todo add n int"),
        run(at, "alter table todo drop task"),
    ]
    at.catch_up()
    assert [told(at, place) for place in places] == [
        [{"id": 1, "task": "milk"}],
        [{"id": 1, "task": "milk", "done": None}],
        [{"id": 1, "task": "milk", "ready": None, "n": None}],
        [{"id": 1, "ready": None, "n": None}],
    ]
    assert [flags(at, place) for place in places] == [[()]] * 4


def test_a_rewrite_makes_older_values_stale_from_there_on_only(
    recorded: Callable[..., Tracked],
) -> None:
    at = recorded("create table todo (id int primary key, n int)")
    run(at, "alter table todo add y int")
    at.catch_up()
    before = run(at, "insert into todo values (1, 7)")
    between = run(at, "alter table todo add x int default 3", "insert into todo values (2, 8)")
    behind = run(at, "alter table todo alter n type text using n || '.'")
    at.catch_up()
    assert [flags(at, each) for each in (before, between, behind)] == [
        [()],
        [("stale:x",), ("stale:x",)],
        [("stale:n", "stale:x"), ("stale:n", "stale:x")],
    ]
    assert told(at, before) == [{"id": 1, "n": 7, "y": None}]


def test_a_rewrite_behind_a_change_that_was_read_late(recorded: Callable[..., Tracked]) -> None:
    """What the catalog says of the change's columns is of behind the rewrite already."""
    at = recorded("create table todo (id int primary key, task text)")
    run(at, "insert into todo values (1, 'a'), (2, 'b')")
    at.catch_up()
    run(at, "update todo set task = 'c' where id = 1")
    place = run(at, "alter table todo add n int default (random() * 1000)::int")
    at.catch_up()
    assert flags(at, place) == [("stale:n",)] * 2


def test_a_rewritten_value_that_no_later_change_sent_is_stale(
    recorded: Callable[..., Tracked],
) -> None:
    """It is that of an earlier change, before the rewrite, though the row was changed since."""
    at = recorded("create table todo (id int primary key, done bool, text text)")
    long = "(select string_agg(md5(n::text), '') from generate_series(1, 200) n)"
    run(at, f"insert into todo values (1, false, {long})")
    at.catch_up()
    run(at, "alter table todo alter text type varchar using text || '.'")
    place = run(at, "update todo set done = true")
    at.catch_up()
    assert "stale:text" in flags(at, place)[0]
    assert len(told(at, place)[0]["text"]) == 6400
    known = run(at, "update todo set text = text || '.'")
    at.catch_up()
    assert "stale:text" not in flags(at, known)[0]


def test_rows_and_alterations_in_one_transaction(recorded: Callable[..., Tracked]) -> None:
    at = recorded("create table todo (id int primary key, a text)")
    place = run(
        at,
        "insert into todo values (1, 'one')",
        "alter table todo rename a to b",
        "insert into todo values (2, 'two')",
        "alter table todo rename b to c",
        "alter table todo add b text",
        "update todo set b = 'b' where id = 1",
        "alter table todo rename b to a",
    )
    at.catch_up()
    assert told(at, place) == [
        {"id": 1, "a": "b", "c": "one"},
        {"id": 2, "a": None, "c": "two"},
    ]


def test_what_the_catalog_no_longer_knows(recorded: Callable[..., Tracked]) -> None:
    """A column that was added with a value and called otherwise before the worker came by."""
    at = recorded("create table todo (id int primary key)")
    run(at, "insert into todo values (1), (2)")
    at.catch_up()
    added = run(at, "alter table todo add a int default 7")
    run(at, "update todo set a = 8 where id = 1")
    renamed = run(at, "alter table todo rename a to b", "alter table todo add a text")
    at.catch_up()
    assert told(at, added) == [{"id": 1}, {"id": 2}]
    assert flags(at, added) == [("stale:a",)] * 2
    assert told(at, renamed) == [{"id": 1, "a": None, "b": 8}, {"id": 2, "a": None}]
    assert ["stale:b" in each for each in flags(at, renamed)] == [False, True]


def test_partitions_follow_the_table_above(recorded: Callable[..., Tracked]) -> None:
    at = recorded(
        "create table logs (gone int, id int, at int, note text, primary key (id, at))"
        " partition by range (at)",
        "alter table logs drop gone",
        "create table old partition of logs for values from (0) to (10)",
        "create table new (note text, id int not null, at int not null)",
        "alter table logs attach partition new for values from (10) to (20)",
    )
    places = [
        run(at, "insert into logs values (1, 1, 'one'), (2, 11, 'two')"),
        run(at, "alter table logs rename note to said", "alter table logs add n int"),
        run(at, "alter table logs detach partition old"),
        run(at, "alter table logs rename to log"),
        run(at, "alter table log attach partition old for values from (0) to (10)"),
    ]
    at.catch_up()
    new = {"id": 2, "at": 11, "said": "two", "n": None}
    both = [{"id": 1, "at": 1, "said": "one", "n": None}, new]

    assert told(at, places[0], "logs") == [
        {"id": 1, "at": 1, "note": "one"},
        {"id": 2, "at": 11, "note": "two"},
    ]
    assert told(at, places[1], "logs") == both
    assert (told(at, places[2], "logs"), told(at, places[2], "old")) == ([new], both[:1])
    assert (told(at, places[3], "log"), told(at, places[3], "old")) == ([new], both[:1])
    assert told(at, places[4], "log") == both
    for place in places[3:]:
        with pytest.raises(UnknownStateError, match="not tracked then under that name"):
            told(at, place, "logs")


def test_names_change_places(recorded: Callable[..., Tracked]) -> None:
    at = recorded(
        "create table todo (id int primary key)", "create table done (id int primary key)"
    )
    first = run(at, "insert into todo values (1)", "insert into done values (2)")
    swapped = run(
        at,
        "alter table todo rename to t",
        "alter table done rename to todo",
        "alter table t rename to done",
    )
    at.catch_up()
    assert [told(at, first, name) for name in ("todo", "done")] == [[{"id": 1}], [{"id": 2}]]
    assert [told(at, swapped, name) for name in ("todo", "done")] == [[{"id": 2}], [{"id": 1}]]
    dropped = run(at, "drop table done")
    at.catch_up()
    assert told(at, dropped) == [{"id": 2}]
    with pytest.raises(UnknownStateError, match="dropped before"):
        told(at, dropped, "done")


def test_a_label_and_a_column_renamed_before_the_look(recorded: Callable[..., Tracked]) -> None:
    """What the look tells of the label does not stand for what a row shows of the column."""
    at = recorded(
        "create type mood as enum ('sad', 'glad')",
        "create table todo (id int primary key, how mood, task text)",
    )
    run(at, "insert into todo values (1, 'sad', 'a')")
    at.catch_up()
    place = run(
        at,
        "alter type mood rename value 'sad' to 'low'",
        "alter table todo rename task to what",
        "insert into todo values (2, 'low', 'b')",
    )
    at.catch_up()
    assert told(at, place) == [
        {"id": 1, "how": "sad", "what": "a"},
        {"id": 2, "how": "low", "what": "b"},
    ]
    assert flags(at, place) == [("stale:how",), ("stale:how",)]


def test_a_key_whose_columns_were_renamed_before_its_changes_were_read(tracked: Track) -> None:
    """It keeps its order, which is not that of the columns: else its rows would never go."""
    at = tracked("create table pairs (a int, b int, c text, primary key (b, a))")
    run(at, "insert into pairs values (1, 2, 'x'), (3, 4, 'y'), (5, 6, 'z')")
    at.catch_up()
    run(at, "delete from pairs where a = 1", "insert into pairs values (7, 8, 'v')")
    run(at, "alter table pairs rename b to d", "delete from pairs where a = 3")
    run(at, "alter table pairs rename d to e", "delete from pairs where a = 7")
    found = [(row["operation"], row["primary_key"]) for row in at.changes()[3:]]
    assert found == [
        ("DELETE", '["2","1"]'),
        ("CREATE", '["8","7"]'),
        ("DELETE", '["4","3"]'),
        ("DELETE", '["8","7"]'),
    ]


def test_without_event_triggers_what_lies_between_two_looks_is_refused(tracked: Track) -> None:
    at = tracked(
        "create table todo (id int primary key, task text)",
        "create table busy (id int primary key, task text)",
        "create table calm (id int primary key)",
    )
    place = run(at, *(f"insert into {each} (id) values (1)" for each in ("todo", "busy", "calm")))
    at.catch_up()
    before = run(at, "insert into busy values (2)")
    shown = run(at, "insert into busy values (3)", "insert into todo values (3)")
    altered = run(at, "alter table todo add a int", "alter table busy rename task to said")
    behind = run(at, "insert into busy values (4)")
    at.catch_up()
    now = run(at, "insert into calm values (2)")
    at.catch_up()
    # It had them where a change shows so.
    assert [len(told(at, before, each)) for each in ("todo", "busy", "calm")] == [1, 2, 1]
    for each in (shown, altered):
        with pytest.raises(UnknownStateError, match=r"it was altered.*\(altered\)"):
            told(at, each)
        with pytest.warns(bemi.errors.UncertainWarning, match="altered"):
            assert [{*row} for row in told(at, each, allow_gaps=True)] == [{"id", "task"}] * 2
    with pytest.raises(UnknownStateError, match=r"\(altered\)"):
        told(at, altered, "busy")
    assert [row["said"] for row in told(at, behind, "busy")] == [None] * 4
    assert told(at, now) == [{"id": 1, "task": None, "a": None}, {"id": 3, "task": None, "a": None}]
    assert [len(told(at, each, "calm")) for each in (place, shown, behind, now)] == [1, 1, 1, 2]


def test_a_label_that_came_between_two_looks_is_one_of_the_type(tracked: Track) -> None:
    at = tracked(
        "create type mood as enum ('sad', 'glad')",
        "create table todo (id int primary key, how mood)",
    )
    run(at, "insert into todo values (1, 'sad')")
    at.catch_up()
    run(at, "alter type mood add value 'calm' before 'glad'")
    place = run(at, "insert into todo values (2, 'calm'), (3, 'glad')")
    run(at, "alter type mood add value 'wild'")
    at.catch_up()
    with bemi.History(at.settings.destination_url) as history:
        history.travel(place, into="then")
    rows = at.query('select id, how::text as said from "then".todo order by how')
    assert [tuple(row.values()) for row in rows] == [(1, "sad"), (2, "calm"), (3, "glad")]
