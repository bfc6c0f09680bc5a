"""Every committed row change is in the history once, whole, in order, whatever it is like."""

import itertools
import json
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from bemi.capture.catalog import Catalog
from bemi.capture.messages import Relation
from bemi.capture.source import Source
from bemi.change import Table
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.support.baselines import assert_state
from tests.support.tracked import Row, Tracked
from tests.support.tracking import track

TODOS = "create table todos (id int primary key, title text, done bool not null default false)"


def told(rows: list[Row], *names: str) -> list[Any]:
    """Of each row the members called `names`; one name gives bare values."""
    if len(names) == 1:
        return [row[names[0]] for row in rows]
    return [tuple(row[name] for name in names) for row in rows]


def test_a_copy_of_1000_rows_gives_1000_changes(tracked: Track) -> None:
    """They share WAL records, and so their LSN."""
    at = tracked(TODOS)
    with at.source.cursor().copy("copy todos (id, title) from stdin") as copy:
        for number in range(1000):
            copy.write_row((number, f"todo {number}"))
    rows = at.changes()
    assert told(rows, "ordinal", "operation", "primary_key") == [
        (number + 1, "CREATE", str(number)) for number in range(1000)
    ]
    assert len(set(told(rows, "position"))) < 1000
    assert len(set(told(rows, "commit_position"))) == 1


def test_an_insert_of_several_rows(tracked: Track) -> None:
    at = tracked(TODOS)
    at.source.execute("insert into todos values (3, 'c', false), (1, 'a', true), (2, null, false)")
    rows = at.changes()
    assert told(rows, "ordinal", "primary_key", "before") == [
        (1, "3", {}),
        (2, "1", {}),
        (3, "2", {}),
    ]
    assert told(rows, "after") == [
        {"id": 3, "title": "c", "done": False},
        {"id": 1, "title": "a", "done": True},
        {"id": 2, "title": None, "done": False},
    ]


def test_what_the_contract_says_of_a_change(tracked: Track) -> None:
    at = tracked(TODOS, full=["*.*"])
    (before,) = at.source.execute("select clock_timestamp()").fetchone() or (None,)
    with at.source.transaction():
        at.source.execute("insert into todos values (1, 'a')")
        row = at.source.execute("select pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
    (after,) = at.source.execute("select clock_timestamp()").fetchone() or (None,)
    (change,) = at.changes()
    assert before <= change["committed_at"] <= after
    assert change["committed_at"] <= change["queued_at"] <= change["created_at"]
    assert change["transaction_id"] == row[0]
    assert (change["database"], change["schema"], change["table"]) == (
        at.source.info.dbname,
        "public",
        "todos",
    )
    assert change["source"] == at.source.info.dbname
    assert change["epoch"] == 1
    assert change["id"].version == 8
    assert (change["previous_key"], change["flags"], change["context"]) == (None, None, {})


def test_an_upsert_inserts_or_updates(tracked: Track) -> None:
    at = tracked(TODOS, full=["*.*"])
    for title in ("first", "second"):
        at.source.execute(
            "insert into todos values (1, %s) "
            "on conflict (id) do update set title = excluded.title",
            [title],
        )
    at.source.execute("insert into todos values (1, 'x') on conflict do nothing")
    rows = at.changes()
    assert told(rows, "operation") == ["CREATE", "UPDATE"]
    assert told(rows, "before") == [{}, {"id": 1, "title": "first", "done": False}]
    assert rows[1]["after"] == {"id": 1, "title": "second", "done": False}


def test_a_merge(tracked: Track) -> None:
    at = tracked(TODOS)
    if at.source.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    at.source.execute("insert into todos select g, 'old' from generate_series(1, 3) g")
    at.source.execute(
        "merge into todos t using (values (2, 'new'), (3, null), (4, 'new')) s (id, title) "
        "on t.id = s.id "
        "when matched and s.title is null then delete "
        "when matched then update set title = s.title "
        "when not matched then insert values (s.id, s.title)"
    )
    rows = at.changes()[3:]
    assert sorted(told(rows, "operation", "primary_key")) == [
        ("CREATE", "4"),
        ("DELETE", "3"),
        ("UPDATE", "2"),
    ]
    assert sorted(told(rows, "ordinal")) == [1, 2, 3]


def test_writes_in_common_table_expressions(tracked: Track) -> None:
    at = tracked(TODOS, "create table moved (id int primary key, title text)")
    at.source.execute("insert into todos values (1, 'a'), (2, 'b')")
    at.source.execute(
        "with gone as (delete from todos returning id, title), "
        "kept as (insert into moved select id, title from gone returning id) "
        "insert into todos select id + 10, 'again' from kept"
    )
    rows = at.changes()[2:]
    assert sorted(told(rows, "table", "operation", "primary_key")) == [
        ("moved", "CREATE", "1"),
        ("moved", "CREATE", "2"),
        ("todos", "CREATE", "11"),
        ("todos", "CREATE", "12"),
        ("todos", "DELETE", "1"),
        ("todos", "DELETE", "2"),
    ]
    assert told(rows, "ordinal") == [1, 2, 3, 4, 5, 6]


def test_writes_of_functions_and_cascades_are_rows_too(tracked: Track) -> None:
    at = tracked(
        "create table lists (id int primary key)",
        "create table items (id int primary key, list int references lists on delete cascade "
        "on update cascade)",
        full=["*.*"],
    )
    at.source.execute("insert into lists values (1)")
    at.source.execute("insert into items values (10, 1), (11, 1)")
    at.source.execute("update lists set id = 2")
    at.source.execute("delete from lists")
    rows = at.changes()[3:]
    assert told(rows, "table", "operation", "primary_key") == [
        ("lists", "UPDATE", "2"),
        ("items", "UPDATE", "10"),
        ("items", "UPDATE", "11"),
        ("lists", "DELETE", "2"),
        ("items", "DELETE", "10"),
        ("items", "DELETE", "11"),
    ]


def test_order_is_the_order_of_commits(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.connect() as one, at.connect() as other:
        one.autocommit = other.autocommit = False
        one.execute("insert into todos values (1)")
        other.execute("insert into todos values (2)")
        one.execute("insert into todos values (3)")
        other.execute("insert into todos values (4)")
        other.commit()
        one.execute("insert into todos values (5)")
        one.commit()
    rows = at.changes()
    assert told(rows, "primary_key", "ordinal") == [
        ("2", 1),
        ("4", 2),
        ("1", 1),
        ("3", 2),
        ("5", 3),
    ]
    commits = told(rows, "commit_position")
    assert commits == sorted(commits)
    positions = told(rows, "position")
    assert positions != sorted(positions), "row LSNs run backwards here, or this proves nothing"


def test_ordinals_count_what_is_captured(tracked: Track) -> None:
    at = tracked(TODOS, "create unlogged table aside (id int primary key)")
    with at.source.transaction():
        at.source.execute("insert into aside values (1)")
        at.source.execute("insert into todos values (1)")
        at.source.execute("insert into aside values (2)")
        at.source.execute("insert into todos values (2)")
    assert told(at.changes(), "primary_key", "ordinal") == [("1", 1), ("2", 2)]


def test_what_is_rolled_back_never_was(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction(force_rollback=True):
        at.source.execute("insert into todos values (1)")
    with at.source.transaction():
        at.source.execute("insert into todos values (2)")
        with at.source.transaction(force_rollback=True):
            at.source.execute("insert into todos values (3)")
            with at.source.transaction():
                at.source.execute("insert into todos values (4)")
        with at.source.transaction():
            at.source.execute("insert into todos values (5)")
    assert told(at.changes(), "primary_key", "ordinal") == [("2", 1), ("5", 2)]


def test_a_prepared_transaction_comes_when_it_is_committed(tracked: Track) -> None:
    at = tracked(TODOS)
    for number, name in ((1, "kept"), (2, "dropped")):
        at.source.execute("begin")
        at.source.execute("""select pg_logical_emit_message(true, '_bemi', '{"two": "phases"}')""")
        at.source.execute("insert into todos values (%s)", [number])
        at.source.execute(sql.SQL("prepare transaction {}").format(at.source.info.dbname + name))
    at.source.execute("insert into todos values (3)")
    assert told(at.changes(), "primary_key") == ["3"]
    at.source.execute(sql.SQL("rollback prepared {}").format(at.source.info.dbname + "dropped"))
    at.source.execute(sql.SQL("commit prepared {}").format(at.source.info.dbname + "kept"))
    rows = at.changes()
    assert told(rows, "primary_key", "context") == [("3", {}), ("1", {"two": "phases"})]


# --- keys and identities


def test_a_composite_key(tracked: Track) -> None:
    """In the key's order, not the table's."""
    at = tracked(
        "create table pages (body text, number int, book text, primary key (book, number))",
        full=["*.*"],
    )
    at.source.execute("insert into pages values ('…', 1, 'say \"hi\"')")
    at.source.execute("update pages set body = 'x'")
    at.source.execute("update pages set number = 2")
    at.source.execute("delete from pages")
    rows = at.changes()
    first, second = '["say \\"hi\\"","1"]', '["say \\"hi\\"","2"]'
    assert told(rows, "primary_key", "previous_key") == [
        (first, None),
        (first, None),
        (second, first),
        (second, None),
    ]
    assert json.loads(rows[0]["primary_key"]) == ['say "hi"', "1"]


def test_a_key_not_called_id_and_not_first(tracked: Track) -> None:
    at = tracked("create table users (name text, email text primary key)")
    at.source.execute("insert into users values ('Ann', 'ann@example.org')")
    at.source.execute("delete from users")
    assert told(at.changes(), "primary_key") == ["ann@example.org"] * 2


def test_no_key_with_the_whole_row_as_identity(tracked: Track) -> None:
    at = tracked("create table log (line text)", "alter table log replica identity full")
    at.source.execute("insert into log values ('a'), ('a')")
    at.source.execute("update log set line = 'b'")
    at.source.execute("delete from log")
    rows = at.changes()
    assert told(rows, "primary_key", "previous_key", "flags") == [(None, None, None)] * 6
    assert told(rows, "before") == [{}, {}, *[{"line": "a"}] * 2, *[{"line": "b"}] * 2]
    assert told(rows, "operation") == ["CREATE"] * 2 + ["UPDATE"] * 2 + ["DELETE"] * 2


def test_identity_default_has_the_old_row_from_the_history(tracked: Track) -> None:
    at = tracked(TODOS)
    at.source.execute("insert into todos values (1, 'a')")
    at.source.execute("update todos set title = 'b'")
    at.source.execute("update todos set id = 2")
    at.source.execute("delete from todos")
    rows = at.changes()
    assert told(rows, "before", "flags") == [
        ({}, None),
        ({"id": 1, "title": "a", "done": False}, None),
        ({"id": 1, "title": "b", "done": False}, None),
        ({"id": 2, "title": "b", "done": False}, None),
    ]
    assert told(rows, "after") == [
        {"id": 1, "title": "a", "done": False},
        {"id": 1, "title": "b", "done": False},
        {"id": 2, "title": "b", "done": False},
        {},
    ]
    assert told(rows, "primary_key", "previous_key") == [
        ("1", None),
        ("1", None),
        ("2", "1"),
        ("2", None),
    ]
    (stored,) = at.query(
        "select changed::text from bemi.row_changes where operation = 'UPDATE' "
        "order by commit_position limit 1"
    )
    assert stored["changed"] == '{"title": "a"}', "only what the update changed is stored twice"


def test_identity_default_knows_of_a_row_the_history_does_not_have_only_the_key(
    tracked: Track,
) -> None:
    at = tracked(TODOS, "insert into todos values (1, 'a'), (3, 'c')")
    at.source.execute("update todos set title = 'b' where id = 1")
    at.source.execute("update todos set id = 4 where id = 3")
    at.source.execute("update todos set title = 'd' where id = 4")
    at.source.execute("delete from todos where id = 1")
    rows = at.changes()
    assert told(rows, "before", "flags") == [
        ({}, ["before_unknown"]),
        ({"id": 3}, ["before_unknown"]),
        ({"id": 4, "title": "c", "done": False}, None),
        ({"id": 1, "title": "b", "done": False}, None),
    ]


def test_identity_full_knows_the_old_row(tracked: Track) -> None:
    at = tracked(TODOS, full=["*.*"])
    at.source.execute("insert into todos values (1, 'a')")
    at.source.execute("update todos set title = null")
    at.source.execute("update todos set id = 2, title = 'b'")
    at.source.execute("update todos set title = 'b'")
    at.source.execute("delete from todos")
    rows = at.changes()
    assert told(rows, "before") == [
        {},
        {"id": 1, "title": "a", "done": False},
        {"id": 1, "title": None, "done": False},
        {"id": 2, "title": "b", "done": False},
        {"id": 2, "title": "b", "done": False},
    ]
    assert told(rows, "flags") == [None] * 5
    assert told(rows, "primary_key", "previous_key") == [
        ("1", None),
        ("1", None),
        ("2", "1"),
        ("2", None),
        ("2", None),
    ]
    (stored,) = at.query(
        "select changed::text from bemi.row_changes where ordinal = 1 "
        "and operation = 'UPDATE' order by commit_position limit 1"
    )
    assert stored["changed"] == '{"title": "a"}', "only what the update changed is stored twice"


def test_identity_using_an_index(tracked: Track) -> None:
    """The index names the row, also beside a primary key, of whose change nothing is told."""
    at = tracked(
        "create table users (id int primary key, email text not null unique, name text)",
        "alter table users replica identity using index users_email_key",
    )
    at.source.execute("insert into users values (1, 'a@x', 'Ann')")
    at.source.execute("update users set name = 'Anne'")
    at.source.execute("update users set email = 'b@x'")
    at.source.execute("update users set id = 2")
    at.source.execute("delete from users")
    rows = at.changes()
    ann = {"id": 1, "email": "a@x", "name": "Ann"}
    anne = {**ann, "name": "Anne"}
    moved = {**anne, "email": "b@x"}
    assert told(rows, "before") == [{}, ann, anne, moved, {**moved, "id": 2}]
    assert told(rows, "flags") == [None] * 5
    assert told(rows, "primary_key", "previous_key") == [
        ("a@x", None),
        ("a@x", None),
        ("b@x", "a@x"),
        ("b@x", None),
        ("b@x", None),
    ]


def test_identity_using_an_index_of_keys_that_are_used_again(tracked: Track) -> None:
    """A row that takes the primary key of another one is not taken for that one."""
    at = tracked(
        "create table users (id int primary key, email text not null unique, note text)",
        "alter table users alter note set storage external",
        "alter table users replica identity using index users_email_key",
    )
    at.source.execute(
        "insert into users values (1, 'a@x', repeat('A', 3000)), (2, 'b@x', repeat('B', 3000))"
    )
    at.catch_up()
    at.source.execute("update users set id = 3 where id = 2")
    at.source.execute("update users set id = 2 where id = 1")
    rows = at.changes()
    assert told(rows[2:], "primary_key", "flags") == [("b@x", None), ("a@x", None)]
    assert rows[3]["before"] == {"id": 1, "email": "a@x", "note": "A" * 3000}
    assert rows[3]["after"] == {"id": 2, "email": "a@x", "note": "A" * 3000}
    assert_state(at.settings, "public.users")


def test_identity_using_an_index_without_a_primary_key(tracked: Track) -> None:
    at = tracked(
        "create table users (email text not null unique, name text)",
        "alter table users replica identity using index users_email_key",
    )
    at.source.execute("insert into users values ('a@x', 'Ann')")
    at.source.execute("update users set email = 'b@x'")
    at.source.execute("delete from users")
    rows = at.changes()
    assert told(rows, "primary_key", "previous_key") == [
        ("a@x", None),
        ("b@x", "a@x"),
        ("b@x", None),
    ]


# --- TOAST

LONG = "create table documents (id int primary key, title text, body text)"
EXTERNAL = "alter table documents alter body set storage external"
BODY = "long " * 2000


def test_an_unchanged_long_value_under_identity_full_is_whole(tracked: Track) -> None:
    at = tracked(LONG, EXTERNAL, full=["*.*"])
    at.source.execute("insert into documents values (1, 'a', %s)", [BODY])
    at.source.execute("update documents set title = 'b'")
    at.source.execute("delete from documents")
    rows = at.changes()
    assert rows[1]["before"] == {"id": 1, "title": "a", "body": BODY}
    assert rows[1]["after"] == {"id": 1, "title": "b", "body": BODY}
    assert rows[2]["before"] == {"id": 1, "title": "b", "body": BODY}
    assert told(rows, "flags") == [None] * 3
    (stored,) = at.query("select changed::text from bemi.row_changes where operation = 'UPDATE'")
    assert stored["changed"] == '{"title": "a"}'


def test_an_unchanged_long_value_under_identity_default_is_in_the_history(tracked: Track) -> None:
    at = tracked(LONG, EXTERNAL)
    at.source.execute("insert into documents values (1, 'a', %s)", [BODY])
    at.source.execute("update documents set title = 'b'")
    at.source.execute("update documents set body = 'short'")
    rows = at.changes()
    assert rows[1]["after"] == {"id": 1, "title": "b", "body": BODY}
    assert rows[2]["after"] == {"id": 1, "title": "b", "body": "short"}
    assert rows[2]["before"] == rows[1]["after"]
    assert told(rows, "flags") == [None] * 3


def test_an_unchanged_long_value_that_the_history_does_not_have_is_said_to_be(
    tracked: Track,
) -> None:
    at = tracked(LONG, EXTERNAL)
    with at.connect() as before:
        before.execute("alter publication bemi drop table documents")
        before.execute("insert into documents values (1, 'a', %s)", [BODY])
        before.execute("alter publication bemi add table documents")
    at.source.execute("update documents set title = 'b'")
    at.source.execute("update documents set body = 'short'")
    rows = at.changes()
    assert rows[0]["after"] == {"id": 1, "title": "b"}
    assert rows[0]["flags"] == ["before_unknown", "unchanged:body"]
    assert rows[1]["after"] == {"id": 1, "title": "b", "body": "short"}
    assert rows[1]["before"] == {"id": 1, "title": "b"}
    assert rows[1]["flags"] == ["before_unknown:body"]


def test_a_long_key_is_sent_without_being_changed(tracked: Track) -> None:
    at = tracked(
        "create table notes (name text primary key, n int)",
        "alter table notes alter name set storage external",
    )
    name = "k" * 2500
    at.source.execute("insert into notes values (%s, 1)", [name])
    at.source.execute("update notes set n = 2")
    at.source.execute("delete from notes")
    rows = at.changes()
    assert rows[1]["after"] == {"name": name, "n": 2}
    assert told(rows, "previous_key") == [None] * 3
    assert len(set(told(rows, "primary_key"))) == 1
    assert rows[0]["primary_key"].startswith("sha256:"), "too long for an index entry"
    assert told(rows, "flags") == [["key_digest"]] * 3
    assert told(rows, "before")[1:] == [{"name": name, "n": 1}, {"name": name, "n": 2}]


# --- TRUNCATE and partitions


def test_a_truncate_of_several_tables_with_cascade(tracked: Track) -> None:
    at = tracked(
        "create table lists (id int primary key)",
        "create table items (id int primary key, list int references lists)",
        TODOS,
    )
    at.source.execute("insert into todos values (1)")
    with at.source.transaction():
        at.source.execute("insert into lists values (1)")
        at.source.execute("truncate lists, todos restart identity cascade")
        at.source.execute("insert into lists values (2)")
    with at.source.transaction(force_rollback=True):
        at.source.execute("truncate todos")
    rows = at.changes()[1:]
    assert told(rows, "operation") == ["CREATE", *["TRUNCATE"] * 3, "CREATE"]
    truncated = rows[1:4]
    assert set(told(truncated, "table")) == {"lists", "items", "todos"}
    assert told(truncated, "ordinal") == [2, 3, 4]
    assert told(truncated, "primary_key", "before", "after") == [(None, {}, {})] * 3


def test_a_partition_shows_the_name_of_its_root(tracked: Track) -> None:
    at = tracked(
        "create schema parts",
        "create table events (day date, n int, primary key (day, n)) partition by range (day)",
        "create table parts.y2024 partition of events for values from ('2024-01-01') "
        "to ('2025-01-01')",
        "create table parts.y2025 partition of events for values from ('2025-01-01') "
        "to ('2026-01-01') partition by list (n)",
        "create table parts.y2025_1 partition of parts.y2025 for values in (1)",
        "create table parts.y2025_2 partition of parts.y2025 default",
        full=["*.*"],
    )
    at.source.execute("insert into events values ('2024-06-01', 1), ('2025-06-01', 1)")
    at.source.execute("update parts.y2025_1 set n = 1 where n = 1")
    at.source.execute("update events set n = 2 where day = '2025-06-01'")
    at.source.execute("truncate parts.y2024")
    rows = at.changes()
    assert set(told(rows, "schema", "table")) == {("public", "events")}
    assert told(rows, "operation", "primary_key") == [
        ("CREATE", '["2024-06-01","1"]'),
        ("CREATE", '["2025-06-01","1"]'),
        ("UPDATE", '["2025-06-01","1"]'),
        ("DELETE", '["2025-06-01","1"]'),
        ("CREATE", '["2025-06-01","2"]'),
        ("TRUNCATE", None),
    ]
    leaves = at.query("select count(distinct relation) as n from bemi.row_changes")
    assert leaves[0]["n"] == 3


# --- names, columns, types


@pytest.mark.parametrize(
    "name",
    [
        'Say "hi"',
        "UPPER lower",
        "naïve 🐘 表",
        "x" * 63,
        "semi;colon--",
        "back\\slash",
        "tab\there",
        "per%cent",
        "'",
        "select",
        "a.b",
    ],
)
def test_names_of_all_kinds(tracked: Track, name: str) -> None:
    identifier = sql.Identifier
    with_name = sql.SQL(
        "create schema {0}; create table {0}.{0} ({0} int primary key, {1} text)"
    ).format(identifier(name), identifier("other" + name[:50]))
    at = tracked(with_name.as_string(None), full=["*.*"])
    table = identifier(name, name)
    at.source.execute(sql.SQL("insert into {} values (1, 'a')").format(table))
    at.source.execute(
        sql.SQL("update {} set {} = 'b'").format(table, identifier("other" + name[:50]))
    )
    at.source.execute(sql.SQL("truncate {}").format(table))
    rows = at.changes()
    assert set(told(rows, "schema", "table")) == {(name, name)}
    assert rows[1]["after"] == {name: 1, "other" + name[:50]: "b"}
    assert told(rows, "primary_key") == ["1", "1", None]


def test_generated_columns(tracked: Track) -> None:
    at = tracked(
        "create table boxes (id int primary key, w int, h int, "
        "area int generated always as (w * h) stored)",
        full=["*.*"],
    )
    at.source.execute("insert into boxes values (1, 2, 3)")
    at.source.execute("update boxes set w = 4")
    rows = at.changes()
    for row, w in zip(rows, (2, 4), strict=True):
        expected = {"id": 1, "w": w, "h": 3}
        if at.source.info.server_version >= 180000:
            expected["area"] = w * 3
        assert row["after"] == expected


def test_domains_enums_arrays_and_composites(tracked: Track) -> None:
    at = tracked(
        "create domain positive as int check (value > 0)",
        "create domain small as positive check (value < 100)",
        "create domain numbers as small[]",
        "create type mood as enum ('sad', 'so, so', 'happy')",
        "create type point3 as (x int, y float8, label text)",
        "create table things (id small primary key, many positive[], more numbers, feel mood, "
        "feels mood[], at point3, path point3[], flags bool[])",
    )
    at.source.execute(
        "insert into things values (7, '{1,2}', '{3,NULL}', 'so, so', '{sad,\"so, so\",NULL}', "
        "row(1, 2.5, 'a \"b\"'), array[row(1, 2, null)::point3], '{t,f}')"
    )
    (row,) = at.changes()
    assert row["after"] == {
        "id": 7,
        "many": [1, 2],
        "more": [3, None],
        "feel": "so, so",
        "feels": ["sad", "so, so", None],
        "at": '(1,2.5,"a ""b""")',
        "path": ["(1,2,)"],
        "flags": [True, False],
    }
    assert row["flags"] is None


def test_types_made_after_the_worker_started(tracked: Track) -> None:
    at = tracked(TODOS)
    at.source.execute("create domain count as int")
    at.source.execute("alter table todos add n count, add m count[]")
    at.source.execute("insert into todos (id, n, m) values (1, 5, '{6}')")
    (row,) = at.changes()
    assert (row["after"]["n"], row["after"]["m"]) == (5, [6])


# Each type's value, as SQL, and what it is in JSON.
VALUES: dict[str, tuple[str, Any]] = {
    "bool": ("true", True),
    "smallint": ("'-32768'", -32768),
    "int": ("2147483647", 2147483647),
    "bigint": ("9223372036854775807", 9223372036854775807),
    "numeric": ("12345678901234567890.123456789012345678900", None),
    "numeric(10,2)": ("1.50", Decimal("1.50")),
    "real": ("'1.1'", Decimal("1.1")),
    "float8": ("'0.1'", Decimal("0.1")),
    "text": ("E'a\\n\"b\" \\\\ 🐘'", 'a\n"b" \\ 🐘'),
    "char(5)": ("'ab'", "ab   "),
    '"char"': ("'x'", "x"),
    "bytea": ("'\\x00ff'", "\\x00ff"),
    "timestamptz": ("'2024-02-29 12:00:00.5+02'", "2024-02-29 10:00:00.5+00"),
    "timestamp": ("'infinity'", "infinity"),
    "date": ("'0044-03-15 BC'", "0044-03-15 BC"),
    "time": ("'24:00'", "24:00:00"),
    "interval": ("'1 year 2 days 03:04:05.6'", "1 year 2 days 03:04:05.6"),
    "money": ("'12.5'", None),
    "uuid": (
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ),
    "inet": ("'10.0.0.1/8'", "10.0.0.1/8"),
    "bit varying": ("B'0101'", "0101"),
    "xml": ("'<a b=\"c\"/>'", '<a b="c"/>'),
    "int4range": ("'[1,5)'", "[1,5)"),
    "tsvector": ("'a:1 b:2'", "'a':1 'b':2"),
    "point": ("'(1.5,2)'", "(1.5,2)"),
    "box[]": ("array['(1,1),(0,0)'::box, '(2,2),(0,0)'::box]", "{(1,1),(0,0);(2,2),(0,0)}"),
    "json": ("'{\"a\" : 1.50}'", {"a": Decimal("1.50")}),
    "jsonb": ("'[1, {\"b\": null}]'", [1, {"b": None}]),
    "text[]": ("array['a', null, 'NULL', '', 'b,c', '\"']", ["a", None, "NULL", "", "b,c", '"']),
    "int[]": ("'{{1,2},{3,4}}'", [[1, 2], [3, 4]]),
    "timestamptz[]": ("array['2024-01-01 00:00+00'::timestamptz]", ["2024-01-01 00:00:00+00"]),
    "oid": ("4294967295", 4294967295),
    "regclass": ("'pg_class'", "pg_class"),
    "pg_lsn": ("'16/B374D848'", "16/B374D848"),
}


def has_xml(url: str) -> bool:
    with psycopg.connect(url) as conn:
        try:
            conn.execute("select '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            return False
    return True


def test_types_have_their_natural_forms(tracked: Track, source_url: str) -> None:
    columns = {
        f"c{at}": type_name
        for at, type_name in enumerate(VALUES)
        if type_name != "xml" or has_xml(source_url)
    }
    at = tracked(
        "create table everything (id int primary key, "
        + ", ".join(f"{name} {type_name}" for name, type_name in columns.items())
        + ")",
        full=["*.*"],
    )
    given = ", ".join(f"{VALUES[name][0]}::{name}" for name in columns.values())
    # What a role prefers must not change what is captured.
    for setting in (
        "datestyle = 'SQL, DMY'",
        "intervalstyle = iso_8601",
        "bytea_output = escape",
        "timezone = 'Asia/Kolkata'",
        "extra_float_digits = -10",
    ):
        at.source.execute(f"alter role current_user set {setting}".encode())
    try:
        at.source.execute(f"insert into everything values (1, {given})".encode())
        (row,) = at.changes()
    finally:
        at.source.execute("alter role current_user reset all")
    assert row["flags"] is None
    for name, type_name in columns.items():
        expected = VALUES[type_name][1]
        if expected is not None:
            assert row["after"][name] == expected, type_name
    (exact,) = at.query("select after ->> 'c4' as n from bemi.changes")
    assert exact["n"] == VALUES["numeric"][0]


def test_what_is_kept_as_text_is_flagged(tracked: Track) -> None:
    at = tracked(
        "create table odd (id int primary key, minus float8, bounds int[], js jsonb[], "
        "nothing jsonb, twice json, nul json, half json, deep json, huge json)"
    )
    at.source.execute(
        "insert into odd values (1, '-0', '[0:1]={1,2}', array['1'::jsonb, 'null'], 'null', "
        """'{"a":1,"a":2}', '"\\u0000"', '"\\ud800"', """
        "(repeat('[', 1000) || repeat(']', 1000))::json, repeat('9', 150000)::json)"
    )
    (row,) = at.changes()
    assert sorted(row["flags"]) == sorted(
        ["json_null:nothing"]
        + [
            f"text:{name}"
            for name in ("minus", "bounds", "js", "twice", "nul", "half", "deep", "huge")
        ]
    )
    after = row["after"]
    assert (after["minus"], after["bounds"], after["js"]) == ("-0", "[0:1]={1,2}", '{1,"null"}')
    assert (after["twice"], after["nul"], after["half"]) == (
        '{"a":1,"a":2}',
        '"\\u0000"',
        '"\\ud800"',
    )
    assert after["deep"] == "[" * 1000 + "]" * 1000
    assert after["huge"] == "9" * 150000
    assert after["nothing"] is None


def test_jsonb_as_deep_as_the_source_takes_it(tracked: Track) -> None:
    """One level more, or a smaller stack, and the destination would refuse it for ever."""
    at = tracked("create table deep (id int primary key, doc jsonb)")
    deepest = 0
    for depth in range(1000, 100_000, 500):
        try:
            at.source.execute(
                "insert into deep select %s, (repeat('[', %s) || repeat(']', %s))::jsonb",
                [depth, depth, depth],
            )
        except psycopg.errors.StatementTooComplex:
            break
        deepest = depth
    rows = at.changes()
    assert rows[-1]["after"]["doc"] == "[" * deepest + "]" * deepest
    assert rows[-1]["flags"] == ["text:doc"]


def test_1600_columns(tracked: Track) -> None:
    columns = ", ".join(f"c{number} smallint" for number in range(1599))
    at = tracked(f"create table wide (id smallint primary key, {columns})", full=["*.*"])
    at.source.execute("insert into wide (id, c0, c1598) values (1, 2, 3)")
    at.source.execute("update wide set c1598 = 4")
    rows = at.changes()
    assert len(rows[1]["after"]) == 1600
    assert (rows[1]["after"]["c1598"], rows[1]["before"]["c1598"]) == (4, 3)


def test_values_of_megabytes(tracked: Track) -> None:
    at = tracked("create table files (id int primary key, data bytea, note text)", full=["*.*"])
    at.source.execute(
        "insert into files select 1, decode(repeat('ab', 6000000), 'hex'), repeat('é', 4000000)"
    )
    at.source.execute("update files set note = 'short'")
    rows = at.changes()
    assert rows[0]["after"]["data"] == "\\x" + "ab" * 6_000_000
    assert rows[1]["before"]["note"] == "é" * 4_000_000
    assert rows[1]["after"]["data"] == rows[0]["after"]["data"]


# --- DDL in the stream


def test_columns_added_and_dropped_within_a_transaction(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        at.source.execute("insert into todos values (1, 'a')")
        at.source.execute("alter table todos add due date default '2024-01-01'")
        at.source.execute("insert into todos values (2, 'b')")
        at.source.execute("alter table todos drop title")
        at.source.execute("insert into todos values (3, true)")
        at.source.execute("alter table todos add title int")
        at.source.execute("insert into todos values (4, true, '2025-01-01', 5)")
    rows = at.changes()
    assert told(rows, "after") == [
        {"id": 1, "title": "a", "done": False},
        {"id": 2, "title": "b", "done": False, "due": "2024-01-01"},
        {"id": 3, "done": True, "due": "2024-01-01"},
        {"id": 4, "done": True, "due": "2025-01-01", "title": 5},
    ]
    assert told(rows, "primary_key") == ["1", "2", "3", "4"]


def test_names_changed_within_a_transaction(tracked: Track) -> None:
    """Rows are shown with the names of their time."""
    at = tracked(TODOS, "create schema archive")
    with at.source.transaction():
        at.source.execute("insert into todos values (1, 'a')")
        at.source.execute("alter table todos rename title to label")
        at.source.execute("insert into todos values (2, 'b')")
        at.source.execute("alter table todos rename to tasks")
        at.source.execute("insert into tasks values (3, 'c')")
        at.source.execute("alter table tasks set schema archive")
        at.source.execute("insert into archive.tasks values (4, 'd')")
        at.source.execute("alter table archive.tasks rename id to number")
        at.source.execute("insert into archive.tasks values (5, 'e')")
    rows = at.changes()
    assert told(rows, "schema", "table") == [
        ("public", "todos"),
        ("public", "todos"),
        ("public", "tasks"),
        ("archive", "tasks"),
        ("archive", "tasks"),
    ]
    assert [next(iter(sorted(set(row["after"]) - {"id", "number", "done"}))) for row in rows] == [
        "title",
        *["label"] * 4,
    ]
    assert told(rows, "primary_key") == ["1", "2", "3", "4", "5"], "by the key's name of now"


def test_a_type_changed_within_a_transaction(tracked: Track) -> None:
    at = tracked("create table t (id int primary key, v text)")
    with at.source.transaction():
        at.source.execute("insert into t values (1, '5')")
        at.source.execute("alter table t alter v type int using v::int")
        at.source.execute("insert into t values (2, 6)")
        at.source.execute("alter table t alter v type int[] using array[v]")
        at.source.execute("insert into t values (3, '{7,8}')")
    assert [row["after"]["v"] for row in at.changes()] == ["5", 6, [7, 8]]


def test_a_table_that_is_gone_when_its_rows_are_read(tracked: Track) -> None:
    at = tracked(TODOS)
    at.source.execute("insert into todos values (1, 'a')")
    at.source.execute("drop table todos")
    at.source.execute("create table todos (key text primary key)")
    (row,) = at.changes()
    assert (row["table"], row["primary_key"]) == ("todos", "1")
    assert row["after"] == {"id": 1, "title": "a", "done": False}
    assert row["flags"] == ["inferred"]


@pytest.mark.parametrize(
    ("ddl", "key", "flags"),
    [
        ("alter table pairs add c int", '["2","1"]', None),
        ("alter table pairs add c int generated always as (k1 + 1) stored", '["2","1"]', None),
        ("drop table pairs", '["2","1"]', ["inferred"]),
        ("alter table pairs rename to other", '["2","1"]', ["inferred"]),
        ("alter table pairs rename v to w", '["2","1"]', ["inferred"]),
        ("alter table pairs drop v", '["2","1"]', ["inferred"]),
        ("alter table pairs rename k1 to kk", '["2","1"]', ["inferred"]),
        (
            "alter table pairs rename k1 to x; alter table pairs rename v to k1",
            '["2","1"]',
            ["inferred"],
        ),
        (
            "alter table pairs drop constraint pairs_pkey; alter table pairs add primary key (v)",
            '["2","1"]',
            ["inferred"],
        ),
    ],
)
def test_a_table_altered_before_its_rows_are_read(
    tracked: Track, ddl: str, key: str, flags: list[str] | None
) -> None:
    """Neither the stream nor the catalog knows the key's order any more: it is flagged."""
    at = tracked("create table pairs (k1 int, k2 int, v int not null, primary key (k2, k1))")
    at.source.execute("insert into pairs values (1, 2, 3)")
    at.source.execute(ddl.encode())
    (row,) = at.changes()
    assert (row["primary_key"], row["flags"]) == (key, flags)
    assert row["after"] == {"k1": 1, "k2": 2, "v": 3}


# --- once


def test_what_was_captured_is_not_captured_again(tracked: Track) -> None:
    at = tracked(TODOS)
    at.source.execute("insert into todos values (1)")
    first = at.changes()
    at.source.execute("insert into todos values (2)")
    second = at.changes()
    assert second[:1] == first
    assert told(second, "primary_key") == ["1", "2"]
    assert at.changes() == second


def test_ids_are_the_same_in_another_history(tracked: Track, make_database: MakeDatabase) -> None:
    """Through another slot, with other rules, into another destination."""
    at = tracked(TODOS, "create table other (id int primary key)", full=["*.*"])
    again = Tracked(
        track(
            at.settings.source_url,
            make_database(),
            tables=["public.todos"],
            slot=at.settings.slot + "_again",
            publication="again",
            source="again",
        )
    )
    try:
        with at.source.transaction():
            at.source.execute("insert into other values (1), (2)")
            at.source.execute("insert into todos select g, 'x' from generate_series(1, 500) g")
            at.source.execute("truncate other, todos")
        whole = {row["id"]: (row["table"], row["primary_key"]) for row in at.changes()}
        part = {row["id"]: (row["table"], row["primary_key"]) for row in again.changes()}
    finally:
        again.close()
    assert len(part) == 501
    assert part.items() <= whole.items()


def test_the_source_hears_of_us_between_two_tables(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog may answer slowly; a server that hears nothing meanwhile cuts us off."""
    names = [f"t{number}" for number in range(20)]
    t = tracked(*(f"create table {name} (id int primary key)" for name in names))
    with t.source.transaction():
        for name in names:
            t.source.execute(f"insert into {name} values (1)".encode())
    done: list[str] = []
    described, acknowledge = Catalog.describe, Source.acknowledge

    def describe(catalog: Catalog, relation: Relation) -> Table:
        done.append("described")
        return described(catalog, relation)

    def acknowledged(source: Source, *args: Any, **options: Any) -> None:
        done.append("acknowledged")
        acknowledge(source, *args, **options)

    monkeypatch.setattr(Catalog, "describe", describe)
    monkeypatch.setattr(Source, "acknowledge", acknowledged)
    assert len(t.changes()) == len(names)
    assert done.count("described") == len(names)
    assert ("described", "described") not in itertools.pairwise(done)
