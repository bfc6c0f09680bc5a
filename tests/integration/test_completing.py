"""Old rows from the history, where rules, encodings and piecewise storing could get in the way."""

import hashlib
import hmac
import random
import threading
from dataclasses import replace

import pytest

from bemi.capture import sink, worker
from bemi.rules import Rules
from tests.integration.conftest import Track
from tests.support.baselines import assert_state
from tests.support.tracked import Row, Tracked

USERS = "create table users (id int primary key, email text, name text, seen_at timestamptz)"
KEY = "a secret that is long enough"


def run(at: Tracked, rules: Rules) -> list[Row]:
    """Another worker, under these rules; the history so far."""
    settings = replace(at.settings, rules=rules, hash_key=KEY)
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    return at.query("select * from bemi.changes order by epoch, commit_position, ordinal")


def digest(value: str) -> str:
    return hmac.new(KEY.encode(), value.encode(), hashlib.sha256).hexdigest()


def test_an_old_value_from_before_it_was_masked_is_not_stored_again(tracked: Track) -> None:
    at = tracked(USERS)
    at.source.execute("insert into users values (1, 'ada@example.com', 'Ada')")
    run(at, Rules())
    at.source.execute("update users set name = 'Ada L.'")
    at.source.execute("update users set name = 'Ada Lovelace'")
    at.source.execute("delete from users")
    _, first, second, deleted = run(at, Rules(mask=("*.email",)))
    assert "ada@" not in str([first, second, deleted])
    assert first["before"] == {"id": 1, "name": "Ada", "seen_at": None}
    assert first["flags"] == ["masked:email", "before_unknown:email"]
    masked = {"id": 1, "email": "***", "name": "Ada L.", "seen_at": None}
    assert (second["before"], second["flags"]) == (masked, ["masked:email"])
    assert deleted["before"] == {**masked, "name": "Ada Lovelace"}
    assert first["rules"] == second["rules"] is not None


def test_an_excluded_column_is_nowhere(tracked: Track) -> None:
    at = tracked(USERS)
    at.source.execute("insert into users values (1, 'ada@example.com', 'Ada')")
    at.source.execute("update users set name = 'Ada L.', email = 'other'")
    at.source.execute("delete from users")
    rows = run(at, Rules(exclude=("*.email",)))
    assert [row["flags"] for row in rows] == [None] * 3
    assert all("email" not in row["before"] | row["after"] for row in rows)
    assert rows[2]["before"] == {"id": 1, "name": "Ada L.", "seen_at": None}


def test_an_excluded_column_that_is_younger_than_the_image_is_nowhere_either(
    tracked: Track,
) -> None:
    at, rules = tracked(USERS), Rules(exclude=("*.phone",))
    at.source.execute("insert into users values (1, 'a', 'Ada')")
    run(at, rules)
    at.source.execute("alter table users add phone text")
    at.source.execute("update users set name = 'Ada L.', phone = '555'")
    at.source.execute("delete from users")
    rows = run(at, rules)
    assert [row["flags"] for row in rows] == [None] * 3
    assert all("phone" not in row["before"] | row["after"] for row in rows)


def test_what_can_not_be_compared_is_recorded(tracked: Track) -> None:
    """All masked values look alike, so a row that has one may have changed."""
    at = tracked(USERS)
    at.source.execute("insert into users values (1, 'a', 'Ada', 'yesterday')")
    at.source.execute("update users set seen_at = now()")
    at.source.execute("update users set seen_at = now(), email = 'b'")
    rules = Rules(ignore=("*.seen_at",), mask=("*.email",))
    assert len(run(at, rules)) == 3
    # Of a masked column that is ignored as well, nobody wants to know.
    both = Rules(ignore=("*.seen_at", "*.email"), mask=("*.email",))
    at.source.execute("update users set seen_at = now(), email = 'c'")
    assert len(run(at, both)) == 3


def test_hashed_values_stay_comparable_and_a_hashed_key_finds_its_row(tracked: Track) -> None:
    at = tracked("create table people (ssn text primary key, name text)")
    at.source.execute("insert into people values ('123', 'Ada')")
    rules = Rules(hash=("*.ssn",))
    run(at, rules)
    at.source.execute("update people set name = 'Ada L.'")
    at.source.execute("update people set ssn = '456'")
    rows = run(at, rules)
    assert [row["primary_key"] for row in rows] == [digest("123"), digest("123"), digest("456")]
    assert rows[2]["previous_key"] == digest("123")
    assert rows[1]["before"] == {"ssn": digest("123"), "name": "Ada"}
    assert rows[2]["before"] == {"ssn": digest("123"), "name": "Ada L."}
    assert "'123'" not in str(rows)


@pytest.mark.parametrize("full", [False, True], ids=["the key", "full"])
def test_an_update_of_ignored_columns_alone_leaves_no_trace(tracked: Track, full: bool) -> None:
    at = tracked(USERS, full=["*.users"] if full else [])
    rules = Rules(ignore=("*.seen_at",))
    at.source.execute("insert into users values (1, 'a', 'Ada', 'yesterday')")
    run(at, rules)
    with at.source.transaction():
        at.source.execute("select pg_logical_emit_message(true, '_bemi', '{\"user_id\": 1}')")
        at.source.execute("update users set seen_at = now()")
    at.source.execute("update users set seen_at = now(), name = 'Ada L.'")
    at.source.execute("update users set seen_at = now()")
    rows = run(at, rules)
    assert [row["operation"] for row in rows] == ["CREATE", "UPDATE"]
    assert rows[1]["after"]["name"] == "Ada L."
    assert rows[1]["before"]["name"] == "Ada"
    # What it was before, only FULL can tell: the history left changes of it out.
    assert rows[1]["flags"] == (None if full else ["before_unknown:seen_at"])
    assert len(at.query("select from bemi.contexts")) == 2


def test_a_row_in_another_encoding_has_its_old_row_in_it_too(tracked: Track) -> None:
    at = tracked(
        "create table größen (name text primary key, maß text, n int)",
        encoding="LATIN1",
        locale="C",
    )
    at.source.execute("insert into größen values ('Füße', 'Zöll', 1)")
    at.catch_up()
    at.source.execute("update größen set n = 2")
    at.source.execute("update größen set maß = 'Fuß'")
    rows = at.changes()
    assert [row["before"] for row in rows] == [
        {},
        {"name": "Füße", "maß": "Zöll", "n": 1},
        {"name": "Füße", "maß": "Zöll", "n": 2},
    ]
    assert [row["flags"] for row in rows] == [None] * 3


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize(
    ("columns", "values"),
    [
        # In UTF-8 it is so long that the history has its digest.
        ("a text, n int, primary key (a)", "{key}, 1"),
        ("a text, n int, b int, primary key (b, a)", "left({key}, 3), 1, 7"),
    ],
)
def test_old_rows_are_found_by_keys_in_other_encodings(
    tracked: Track, encoding: str, columns: str, values: str
) -> None:
    at = tracked(f"create table t ({columns})", encoding=encoding, locale="C")
    raw = bytes(random.Random(1).choices(range(0x80, 0x100), k=1900)).hex()
    key = f"convert_from('\\x{raw}', '{encoding}')"
    at.source.execute(f"insert into t values ({values.format(key=key)})".encode())
    at.source.execute("update t set n = 2")
    at.catch_up()
    at.source.execute("update t set n = 3")
    rows = at.changes()
    # What is no text is known in its own batch only: it can't be read back.
    last = 2 if encoding == "LATIN1" else None
    assert [row["before"].get("n") for row in rows] == [None, 1, last]
    assert ("before_unknown" in (rows[2]["flags"] or ())) == (last is None)


@pytest.mark.parametrize("size", [1, 300, 5000])
def test_a_transaction_in_many_pieces_completes_its_own_rows(
    tracked: Track, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(sink, "PIECE_BYTES", size)
    at = tracked(USERS, "create table other (id int primary key)")
    with at.source.transaction():
        for number in range(1, 4):
            at.source.execute("insert into users values (%s, 'a', 'x')", [number])
            at.source.execute("update users set name = name || 'x'")
            at.source.execute("insert into other values (%s)", [number])
        at.source.execute("update users set id = 10 - id")
        at.source.execute("delete from users where id < 9")
        at.source.execute("truncate users")
        at.source.execute("insert into users values (9, 'b', 'again')")
        at.source.execute("update users set email = 'c'")
    rows = at.changes()
    assert {tuple(row["flags"] or ()) for row in rows} == {()}
    names = [
        (row["before"].get("name"), row["after"].get("name"))
        for row in rows
        if row["operation"] in ("UPDATE", "DELETE")
    ]
    x = ["x" * n for n in range(6)]
    assert names[:6] == [
        (x[1], x[2]), (x[2], x[3]), (x[1], x[2]), (x[3], x[4]), (x[2], x[3]), (x[1], x[2]),
    ]  # fmt: skip
    assert sorted(names[6:9]) == [(x[2], x[2]), (x[3], x[3]), (x[4], x[4])]
    assert names[-1] == ("again", "again")


def test_an_inserted_row_may_be_updated_by_the_next_worker_of_another_identity(
    tracked: Track,
) -> None:
    """FULL for a while, then not: images are images, whoever told them."""
    at = tracked(USERS, full=["*.users"])
    at.source.execute("insert into users values (1, 'a', 'Ada')")
    at.source.execute("update users set name = 'Ada L.'")
    at.source.execute("alter table users replica identity default")
    at.source.execute("update users set name = 'Ada Lovelace'")
    at.catch_up()
    at.source.execute("update users set email = 'b'")
    rows = at.changes()
    assert [row["before"].get("name") for row in rows] == [None, "Ada", "Ada L.", "Ada Lovelace"]
    assert [row["flags"] for row in rows] == [None] * 4


def test_a_table_that_was_announced_again_within_a_batch(tracked: Track) -> None:
    """Columns have been added and renamed before the worker reads of it; it does not fall over."""
    at = tracked("create table t (k int primary key, a text)")
    at.source.execute("insert into t values (1, 'one')")
    at.catch_up()
    at.source.execute("alter table t add x int")
    at.source.execute("update t set a = 'two'")
    at.source.execute("alter table t rename a to c")
    with at.source.transaction():
        at.source.execute("update t set c = 'three'")
        at.source.execute("analyze t")  # announces the table again
        at.source.execute("update t set c = 'four'")
    rows = at.changes()
    assert [row["after"].get("c", row["after"].get("a")) for row in rows] == [
        "one",
        "two",
        "three",
        "four",
    ]
    for row, last in zip(rows[1:], ("one", "two", "three"), strict=True):
        known = row["before"].get("c", row["before"].get("a", last))
        assert known == last
        assert {"a", "c"} & row["before"].keys() or row["flags"], row


def test_a_key_that_was_rewritten_finds_no_other_row(tracked: Track) -> None:
    at = tracked(
        "create table t (k int primary key, n int, note text)",
        "alter table t alter note set storage external",
    )
    at.source.execute("insert into t values (1, 1, repeat('A', 3000)), (2, 2, repeat('B', 3000))")
    at.catch_up()
    at.source.execute("alter table t alter k type int using k + 1")
    at.source.execute("update t set n = 5 where k = 2")
    change = at.changes()[-1]
    assert change["before"] == {}
    assert change["after"] == {"k": 2, "n": 5}
    assert sorted(change["flags"]) == ["before_unknown", "unchanged:note"]


def test_names_that_changed_places_twice(tracked: Track) -> None:
    """What is read in between has the names of then, which the catalog no longer tells apart."""
    at = tracked("create table t (id int primary key, x int, y int, z int)")
    at.source.execute("insert into t values (1, 10, 20, 0)")
    at.catch_up()
    swap = ("rename x to other", "rename y to x", "rename other to y")
    for each in swap:
        at.source.execute(f"alter table t {each}".encode())
    at.source.execute("update t set z = 1")
    for each in swap:
        at.source.execute(f"alter table t {each}".encode())
    change = at.changes()[-1]
    assert change["after"] == {"id": 1, "y": 10, "x": 20, "z": 1}
    assert change["before"].get("x", 20) == 20
    assert change["before"].get("y", 10) == 10
    assert "inferred" in change["flags"]


def test_a_key_is_never_ignored(tracked: Track) -> None:
    """By another key it is another row, whatever a glob says."""
    at = tracked("create table t (id int primary key, other_id int, name text)")
    rules = Rules(ignore=("*_id", "*.id"))
    at.source.execute("insert into t values (1, 1, 'a')")
    run(at, rules)
    at.source.execute("update t set id = 2")
    at.source.execute("update t set other_id = 2")
    at.source.execute("update t set name = 'b'")
    rows = run(at, rules)
    assert [(row["primary_key"], row["previous_key"]) for row in rows] == [
        ("1", None),
        ("2", "1"),
        ("2", None),
    ]
    assert_state(at.settings, "public.t")


def test_json_values_that_python_takes_for_the_same(tracked: Track) -> None:
    """0 and false are two values, and so are numbers that a float can't tell apart."""
    at = tracked("create table t (id int primary key, j json)")
    texts = ["false", "0", "1", "true", "1E-400", "0.0", "12345678901234567890", "[1]", "[ 1 ]"]
    at.source.execute("insert into t values (1, %s)", [texts[0]])
    for text in texts[1:]:
        at.source.execute("update t set j = %s", [text])
    rows = run(at, Rules())
    told = at.query(
        "select before ->> 'j' as was, after ->> 'j' as now from bemi.changes order by position"
    )
    assert [row["was"] for row in told[1:]] == [row["now"] for row in told[:-1]]
    assert len(rows) == len(texts)
