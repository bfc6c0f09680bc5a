"""What PostgreSQL sends of a row, what names it, and what Bemi makes of that."""

import dataclasses
import hashlib
import json
import os
from typing import Any

import psycopg
import pytest

from bemi.capture import setup
from bemi.capture.messages import Delete, Insert, Relation, Update
from bemi.capture.preflight import diagnose
from bemi.capture.tables import add_new_tables, survey
from bemi.change import UNCHANGED
from bemi.errors import SetupError
from bemi.rules import Rules
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.integration.facts.command import bemi
from tests.integration.facts.peek import peek, rows_sent, sent
from tests.support.tracked import Row, Tracked

TODOS = "create table todos (id int primary key, title text, done bool not null default false)"
DOCUMENTS = "create table documents (id int primary key, title text, body text)"
EXTERNAL = "alter table documents alter body set storage external"
BODY = "long " * 2000

huge = pytest.mark.skipif(
    not os.environ.get("BEMI_TEST_HUGE"),
    reason="takes half a minute and gigabytes: BEMI_TEST_HUGE=1 runs it",
)
# Gigabytes of memory: one after the other, whatever else runs.
large = pytest.mark.xdist_group("gigabytes")


def told(rows: list[Row], *names: str) -> list[Any]:
    """Of each row the members called `names`; one name gives bare values."""
    if len(names) == 1:
        return [row[names[0]] for row in rows]
    return [tuple(row[name] for name in names) for row in rows]


def update_sent(at: Tracked) -> Update:
    """The one UPDATE to come."""
    (message,) = sent(at, Update)
    return message


# --- TOAST


def test_a_toast_value_that_an_update_leaves_alone_under_full(tracked: Track) -> None:
    """It is missing in the new row, but stands in the old one."""
    at = tracked(DOCUMENTS, EXTERNAL, full=["*.*"])
    at.source.execute("insert into documents values (1, 'a', %s)", [BODY])
    at.source.execute("update documents set title = 'b'")
    message = update_sent(at)
    assert message.new == (b"1", b"b", UNCHANGED)
    assert (message.old_kind, message.old) == ("O", (b"1", b"a", BODY.encode()))

    rows = at.changes()
    assert rows[1]["before"] == {"id": 1, "title": "a", "body": BODY}
    assert rows[1]["after"] == {"id": 1, "title": "b", "body": BODY}
    assert rows[1]["flags"] is None


def test_a_toast_value_that_an_update_leaves_alone_under_default(tracked: Track) -> None:
    """There is no old row: the value comes from the history, or is said to be unchanged.

    Value, NULL and unchanged are three states, and no text of a user's is taken for one.
    """
    at = tracked(
        DOCUMENTS,
        EXTERNAL,
        f"insert into documents values (1, 'before tracking', '{BODY}')",
    )
    at.source.execute(
        "insert into documents values "
        "(2, 'tracked', %s), (3, 'no body', null), (4, 'unchanged', 'unchanged')",
        [BODY],
    )
    at.catch_up()
    at.source.execute("update documents set title = title || '!'")
    assert [(message.old, message.new[2]) for message in sent(at, Update)] == [
        (None, UNCHANGED),
        (None, UNCHANGED),
        (None, None),
        (None, b"unchanged"),
    ]

    unknown, known, null, short = at.changes()[3:]
    assert unknown["after"] == {"id": 1, "title": "before tracking!"}
    assert unknown["flags"] == ["before_unknown", "unchanged:body"]
    assert known["after"] == {"id": 2, "title": "tracked!", "body": BODY}
    assert known["before"] == {"id": 2, "title": "tracked", "body": BODY}
    assert null["after"] == {"id": 3, "title": "no body!", "body": None}
    assert short["after"] == {"id": 4, "title": "unchanged!", "body": "unchanged"}
    assert told([known, null, short], "flags") == [None] * 3


# --- old rows


def test_a_k_tuple_has_null_for_the_columns_outside_of_the_key(tracked: Track) -> None:
    """They are not NULL, but not known; an O tuple is the whole row."""
    at = tracked(
        TODOS,
        "create table full_todos (like todos including all)",
        "insert into todos values (1, 'a', true), (2, 'b', true)",
        "insert into full_todos values (1, null, true)",
        full=["public.full_todos"],
    )
    at.source.execute("update todos set id = 3 where id = 1")
    at.source.execute("delete from todos where id = 2")
    at.source.execute("delete from full_todos")
    moved, deleted, whole = rows_sent(at)
    assert isinstance(moved, Update)
    assert isinstance(deleted, Delete)
    assert isinstance(whole, Delete)
    assert (moved.old_kind, moved.old) == ("K", (b"1", None, None))
    assert (deleted.old_kind, deleted.old) == ("K", (b"2", None, None))
    assert (whole.old_kind, whole.old) == ("O", (b"1", None, b"t"))

    assert told(at.changes(), "before", "flags") == [
        ({"id": 1}, ["before_unknown"]),
        ({"id": 2}, ["before_unknown"]),
        ({"id": 1, "title": None, "done": True}, None),
    ]


def test_a_k_tuple_without_a_change_of_the_key(tracked: Track) -> None:
    """Sent when the key is toasted: whether it changed is compared, not inferred."""
    at = tracked(
        "create table notes (name text primary key, n int)",
        "alter table notes alter name set storage external",
    )
    first, second = "k" * 2500, "l" * 2500
    at.source.execute("insert into notes values (%s, 1)", [first])
    at.source.execute("update notes set n = 2")
    at.source.execute("update notes set name = %s", [second])
    same, moved = sent(at, Update)
    assert (same.old_kind, same.old) == ("K", (first.encode(), None))
    assert (moved.old_kind, moved.old) == ("K", (first.encode(), None))

    created, same_row, moved_row = at.changes()
    assert same_row["previous_key"] is None
    assert same_row["primary_key"] == created["primary_key"]
    assert same_row["after"] == {"name": first, "n": 2}
    assert moved_row["previous_key"] == created["primary_key"]
    assert moved_row["primary_key"] not in (None, created["primary_key"])


def test_identity_full_marks_every_column_as_key(tracked: Track) -> None:
    """The primary key is the catalog's, in its own order."""
    at = tracked(
        "create table pages (body text, number int, book text, primary key (book, number))",
        full=["*.*"],
    )
    at.source.execute("insert into pages values ('…', 1, 'b')")
    (relation,) = sent(at, Relation)
    assert relation.identity == "f"
    assert [column.in_identity for column in relation.columns] == [True] * 3

    (row,) = at.changes()
    assert json.loads(row["primary_key"]) == ["b", "1"]
    (version,) = at.query("select primary_key, replica_identity from bemi.schema_history")
    assert (version["primary_key"], version["replica_identity"]) == (["book", "number"], "f")


WITHOUT_IDENTITY = {
    "no_key": "create table no_key (id int, n int)",
    "late_key": "create table late_key (id int primary key deferrable, n int)",
    "nothing": (
        "create table nothing (id int primary key, n int);"
        " alter table nothing replica identity nothing"
    ),
}


def test_published_without_an_identity_the_applications_own_updates_fail(tracked: Track) -> None:
    """So only tables with one are published, and one that loses it is told, with its mending."""
    at = tracked(TODOS, *WITHOUT_IDENTITY.values())
    for name in WITHOUT_IDENTITY:
        at.source.execute(f"insert into {name} values (1, 1)".encode())
        at.source.execute(f"update {name} set n = 2".encode())
        with at.source.transaction(force_rollback=True):
            at.source.execute(f"alter publication bemi add table {name}".encode())
            for write in (f"update {name} set n = 3", f"delete from {name}"):
                with (
                    pytest.raises(psycopg.Error, match="replica identity") as refused,
                    at.source.transaction(),
                ):
                    at.source.execute(write.encode())
                assert refused.value.sqlstate == "55000"

    found = setup.init(at.settings, report=lambda _: None)
    assert [state.name for state in found.tracked] == ["todos"]
    reasons = {state.name: state.reason or "" for state in found.untracked}
    assert set(reasons) == set(WITHOUT_IDENTITY)
    assert "no primary key" in reasons["no_key"]
    assert "deferrable" in reasons["late_key"]
    assert "NOTHING" in reasons["nothing"]
    for state in found.untracked:
        assert state.fix
        at.source.execute(state.fix.encode())
    assert not setup.init(at.settings, report=lambda _: None).untracked
    for name in WITHOUT_IDENTITY:
        at.source.execute(f"update {name} set n = 4".encode())
    assert told(at.changes(), "after") == [{"id": 1, "n": 4}] * 3


def test_a_key_that_is_dropped_later(tracked: Track) -> None:
    """The application's updates fail from then on: doctor and the worker's look say so."""
    at = tracked(TODOS)
    at.source.execute("insert into todos values (1, 'a')")
    at.source.execute("alter table todos drop constraint todos_pkey")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        at.source.execute("update todos set title = 'b'")

    (failing,) = add_new_tables(at.source, at.settings).failing
    assert failing.qualified == "public.todos"
    assert failing.reason is not None
    (finding,) = (each for each in diagnose(at.settings) if each.check == "tables")
    assert finding.level == "failure"
    assert "public.todos" in finding.message
    assert failing.fix
    assert failing.fix in (finding.fix or "")
    at.source.execute(failing.fix.encode())
    at.source.execute("update todos set title = 'b'")
    assert told(at.changes(), "operation") == ["CREATE", "UPDATE"]


def test_a_partition_does_not_inherit_an_identity(tracked: Track) -> None:
    """Each leaf is judged by itself."""
    at = tracked(
        TODOS,
        "create table events (day int, n int) partition by range (day)",
        "create table events_1 partition of events for values from (1) to (2)",
        "alter table events replica identity full",
        "create table events_2 partition of events for values from (2) to (3)",
        "alter table events_2 replica identity full",
    )
    identities = at.source.execute(
        "select relname, relreplident::text from pg_class where relname ~ '^events' order by 1"
    ).fetchall()
    assert identities == [("events", "f"), ("events_1", "d"), ("events_2", "f")]
    at.source.execute("insert into events values (1, 1), (2, 1)")
    with at.source.transaction(force_rollback=True):
        at.source.execute("alter publication bemi add table events_1")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            at.source.execute("update events_1 set n = 2")

    at.source.execute("update events set n = 2")
    states = {state.name: state for state in survey(at.source, at.settings)}
    assert (states["events_1"].published, states["events_1"].identity) == (False, "none")
    assert (states["events_2"].published, states["events_2"].identity) == (True, "full")
    assert told(at.changes(), "after") == [{"day": 2, "n": 1}, {"day": 2, "n": 2}]


def test_equal_rows_without_a_key_can_not_be_told_apart(tracked: Track) -> None:
    """Which of them it was is not in the stream; the history gives none of them a name."""
    at = tracked("create table log (line text)", full=["*.*"])
    at.source.execute("insert into log values ('a'), ('a')")
    (first, second) = at.source.execute("select ctid::text from log order by ctid").fetchall()
    for (place,) in (second, first):
        at.source.execute("delete from log where ctid = %s::tid", [place])
    one, other = sent(at, Delete)
    assert one == other

    rows = at.changes()
    assert told(rows, "primary_key", "previous_key") == [(None, None)] * 4
    assert told(rows, "before") == [{}, {}, {"line": "a"}, {"line": "a"}]
    (version,) = at.query("select primary_key from bemi.schema_history")
    assert version["primary_key"] == []


# --- the price of FULL


def _wal_of_an_update(at: Tracked, table: str) -> int:
    """Bytes of WAL that an update of all rows writes, without images of whole pages."""
    statement = f"explain (analyze, wal, format json) update {table} set n = n + 1".encode()
    while True:
        row = at.source.execute(statement).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        if not plan.get("WAL FPI"):
            return int(plan["WAL Bytes"])


def test_identity_full_writes_more_wal(tracked: Track) -> None:
    """By half as much again and more; so it is a choice for each table, that nothing else makes."""
    rows = "select g, 0, repeat('x', 60), 'short', now() from generate_series(1, 500) g"
    columns = "(id int primary key, n int, a text, b text, at timestamptz)"
    at = tracked(
        f"create table lean {columns} with (fillfactor = 40)",
        f"create table rich {columns} with (fillfactor = 40)",
        f"insert into lean {rows}",
        f"insert into rich {rows}",
        full=["public.rich"],
    )
    identities = dict(
        at.source.execute(
            "select relname, relreplident::text from pg_class where relname in ('lean', 'rich')"
        ).fetchall()
    )
    assert identities == {"lean": "d", "rich": "f"}
    lean, rich = _wal_of_an_update(at, "lean"), _wal_of_an_update(at, "rich")
    assert rich > 1.4 * lean

    # What FULL pays for: the old row, though the history never had it.
    seen = {row["table"]: row for row in reversed(at.changes())}
    assert seen["lean"]["flags"] == ["before_unknown"]
    assert seen["rich"]["flags"] is None
    assert seen["rich"]["before"] == {**seen["rich"]["after"], "n": 0}
    assert "more WAL" in bemi(at.settings, "init", "--full", "public.rich")
    assert "more WAL" not in bemi(at.settings, "init")


@huge
@large
@pytest.mark.timeout(300)
def test_identity_full_makes_a_row_over_1_gb_impossible_to_update(tracked: Track) -> None:
    """The whole old row would have to be logged in one piece."""
    at = tracked(*_a_row_over_1_gb("external"), full=[])
    _grow(at)
    at.source.execute("alter table films replica identity full")
    for write in ("update films set n = 2", "delete from films"):
        with pytest.raises(psycopg.Error, match="invalid memory alloc request size"):
            at.source.execute(write.encode())
    at.source.execute("alter table films replica identity default")
    at.source.execute("update films set n = 2")

    at.source.execute("alter publication bemi add table films")
    at.source.execute("update films set n = 3")
    row = at.changes()[-1]
    assert row["after"] == {"id": 1, "n": 3}
    assert row["flags"] == ["before_unknown", "unchanged:a", "unchanged:b", "unchanged:c"]


def _a_row_over_1_gb(storage: str) -> list[str]:
    return [
        "create table films (id int primary key, n int, a text, b text, c text)",
        *(f"alter table films alter {name} set storage {storage}" for name in "abc"),
        "create table todos (id int primary key)",
    ]


def _grow(at: Tracked) -> None:
    """Make the row, value by value: it could not be inserted as a whole. Nothing is captured."""
    at.source.execute("alter publication bemi drop table films")
    at.source.execute("insert into films values (1, 1)")
    for name in "abc":
        at.source.execute(f"update films set {name} = repeat('x', 400_000_000)".replace("_", ""))


# --- values and rows that are large


def test_an_update_with_the_same_values_is_sent(tracked: Track) -> None:
    """It is a change like any other. By rule, one that alters nothing of interest is none."""
    at = tracked(TODOS, "create table full_todos (like todos including all)", full=["*.full_*"])
    for table in ("todos", "full_todos"):
        at.source.execute(f"insert into {table} values (1, 'a')".encode())
        at.source.execute(f"update {table} set title = title".encode())
    assert [type(message) for message in rows_sent(at)] == [Insert, Update] * 2

    rows = at.changes()
    assert told(rows, "operation") == ["CREATE", "UPDATE"] * 2
    for row in rows[1::2]:
        assert row["before"] == row["after"] == {"id": 1, "title": "a", "done": False}
        assert row["flags"] is None

    at.settings = dataclasses.replace(at.settings, rules=Rules(ignore=("*.done",)))
    for table in ("todos", "full_todos"):
        at.source.execute(f"update {table} set done = true".encode())
        at.source.execute(f"update {table} set done = false, title = 'b'".encode())
    assert [type(message) for message in rows_sent(at)] == [Update] * 4
    later = at.changes()[4:]
    assert told(later, "table", "operation") == [("todos", "UPDATE"), ("full_todos", "UPDATE")]
    assert [row["after"] for row in later] == [{"id": 1, "title": "b", "done": False}] * 2


def test_1600_columns(tracked: Track) -> None:
    columns = [f"c{number} smallint" for number in range(1599)]
    wide = f"create table wide (id smallint primary key, {', '.join(columns)})"
    at = tracked(wide, full=["*.*"])
    with pytest.raises(psycopg.errors.TooManyColumns):
        at.source.execute("alter table wide add one_more int")
    values = ", ".join(str(number) for number in range(1599))
    at.source.execute(f"insert into wide values (1, {values})".encode())
    at.source.execute("update wide set c1598 = -1")
    at.source.execute("delete from wide")
    assert [len(message.columns) for message in sent(at, Relation)] == [1600]

    created, updated, deleted = at.changes()
    assert created["after"] == {"id": 1, **{f"c{n}": n for n in range(1599)}}
    assert updated["before"] == created["after"]
    assert updated["after"] == {**created["after"], "c1598": -1}
    assert deleted["before"] == updated["after"]


@large
@pytest.mark.timeout(240)
def test_jsonb_refuses_strings_and_rows_of_256_mb(tracked: Track) -> None:
    """Stored with them, a change would be refused for ever: they are left out, and that is said."""
    at = tracked("create table files (id int primary key, note text, data bytea)")
    for value in ("to_jsonb(repeat('x', 268435456))", "jsonb_build_array(repeat('x', 268435455))"):
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            at.destination.execute(f"select {value}".encode())
    at.source.execute("insert into files values (1, repeat('x', 268435456), 'a')")
    # Half as much of bytea, whose text is hexadecimal.
    at.source.execute("insert into files select 2, 'b', convert_to(repeat('x', 134217728), 'UTF8')")
    at.source.execute("insert into files values (3, 'c', 'c')")

    note = hashlib.sha256(b"x" * 268435456).hexdigest()
    data = hashlib.sha256(b"\\x" + b"78" * 134217728).hexdigest()
    assert told(at.changes(), "after", "flags") == [
        ({"id": 1, "data": "\\x61"}, ["too_large:note", f"sha256:{note}:note"]),
        ({"id": 2, "note": "b"}, ["too_large:data", f"sha256:{data}:data"]),
        ({"id": 3, "note": "c", "data": "\\x63"}, None),
    ]


@large
@pytest.mark.timeout(240)
def test_bytea_of_600_mb_stops_the_stream_for_ever(
    tracked: Track, make_database: MakeDatabase
) -> None:
    """PostgreSQL can't write its text form. The worker ends and says why; after `init --new-slot`
    and `run --accept-gap` it goes on, and the gap is on record."""
    at = tracked("create table films (id int primary key, data bytea)", TODOS)
    at.source.execute("insert into todos values (1)")
    at.source.execute("insert into films select 1, convert_to(repeat('x', 600000000), 'UTF8')")
    at.source.execute("insert into todos values (2)")
    for _ in range(2):
        with pytest.raises(psycopg.Error, match="invalid memory alloc request size") as refused:
            peek(at)
    assert "associated LSN" in (refused.value.diag.context or "")

    with pytest.raises(SetupError, match=r"logged at .*: invalid memory alloc request size"):
        at.catch_up()
    assert at.query("select * from bemi.missing") == []
    found = setup.init(at.settings, new_slot=True, report=lambda _: None)
    assert found.gap is not None
    at.catch_up(accept_gap=True)
    at.source.execute("insert into todos values (3)")
    rows = at.changes()
    assert told(rows, "primary_key") == ["1", "3"]
    (gap,) = at.query("select * from bemi.missing where relation is null")
    assert rows[0]["commit_position"] < gap["from_position"]
    assert gap["to_position"] < rows[1]["commit_position"]


@huge
@large
@pytest.mark.timeout(300)
def test_a_row_whose_text_is_over_1_gb_stops_the_stream_for_ever(tracked: Track) -> None:
    """A message has to fit into 1 GB: the sum of the values counts, where all are sent."""
    at = tracked(*_a_row_over_1_gb("extended"))
    _grow(at)
    at.source.execute("alter table films replica identity full")
    at.source.execute("alter publication bemi add table films")
    at.source.execute("delete from films")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="string buffer"):
        peek(at)

    with pytest.raises(SetupError, match=r"string buffer|out of memory"):
        at.catch_up()
    assert setup.init(at.settings, new_slot=True, report=lambda _: None).gap is not None
    at.catch_up(accept_gap=True)
    at.source.execute("insert into todos values (1)")
    assert told(at.changes(), "table") == ["todos"]
