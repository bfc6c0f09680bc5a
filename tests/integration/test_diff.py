"""What a change did, and what rows differ in between two times."""

import csv
import io
import json
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bemi
from bemi.errors import UnknownStateError, UsageError
from bemi.history.comparing import Compared, compare
from bemi.history.difference import Difference
from bemi.history.moments import newest
from bemi.lsn import Lsn
from bemi.store import between
from bemi.store.between import Stretch
from bemi.store.grants import grant
from tests.integration.conftest import Track
from tests.integration.test_travel import Traveller
from tests.support.asked import Asked
from tests.support.tracked import Tracked


def changed(key: str, columns: dict[str, tuple[Any, Any]], was: str | None = None) -> Difference:
    return Difference(kind="changed", key=key, previous_key=was, columns=columns)


def test_what_a_change_did(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'milk', 1.10, '{\"a\": 1}')")
    asked.write("update todo set task = 'oats', data = '{\"a\": 2}', id = 2")
    asked.write("delete from todo")
    asked.write("truncate todo")
    history = asked.ready()
    truncate, delete, update, create = history.changes()
    assert (
        [*history.diff(update.id)]
        == [*history.diff(str(update.id))]
        == [
            changed(
                "2", {"id": (1, 2), "task": ("milk", "oats"), "data": ({"a": 1}, {"a": 2})}, "1"
            )
        ]
    )
    (added,) = history.diff(create.id)
    assert (added.kind, added.columns["price"]) == ("added", (None, Decimal("1.10")))
    (removed,) = history.diff(delete.id)
    assert (removed.kind, removed.key, removed.columns["task"]) == ("removed", "2", ("oats", None))
    with pytest.raises(UnknownStateError, match="is a TRUNCATE"):
        [*history.diff(truncate.id)]


def test_what_the_history_does_not_know_is_no_difference(tracked: Track) -> None:
    """Without whole old rows: an unknown one, and a long value that was not sent."""
    at = tracked(
        "create table todo (id int primary key, n int, body text)",
        "insert into todo select 1, 1, string_agg(md5(i::text), '') from generate_series(1, 500) i",
    )
    at.source.execute("update todo set n = 2")
    at.catch_up()
    with bemi.History(at.settings.destination_url) as history:
        (update,) = history.changes()
        assert [*history.diff(update.id)] == [
            Difference(
                kind="changed",
                key="1",
                columns={"n": (None, 2), "id": (None, 1)},
                unknown=("n", "id"),
            )
        ]


def test_what_a_row_differs_in(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'milk', 1), (2, 'x', 2)")
    asked.write("update todo set task = 'oats' where id = 1")
    asked.write("update todo set id = 3, price = 1.0 where id = 1")
    asked.write("insert into todo values (1, 'another')")
    asked.write("delete from todo where id = 2")
    history = asked.ready()
    *_, moved, update, _, create = history.changes()

    def found(key: object, **times: Any) -> list[Difference]:
        return [*history.diff("todo", key, **times)]

    assert found(1, start=create.id, end=update.id) == [changed("1", {"task": ("milk", "oats")})]
    whole = changed(
        "3", {"id": (1, 3), "task": ("milk", "oats"), "price": (1, Decimal("1.0"))}, "1"
    )
    assert found(3, start=create.id) == found("3", start=create.id, end=moved.id) == [whole]
    assert found(1, start=create.id, end=moved.id) == [whole]
    added, followed = found(1, start=create.committed_at)
    assert (added.kind, added.key, followed) == ("added", "1", whole)
    assert [each.kind for each in found(2, start=create.id)] == ["removed"]
    assert found(2, start=create.id, end=moved.id) == []
    with pytest.raises(UnknownStateError, match="had no row 99 at either time"):
        found(99, start=create.id)
    with pytest.raises(UsageError, match="its column id is of the type integer"):
        found("abc", start=create.id)


def test_what_a_table_differs_in(asked: Asked) -> None:
    asked.write("insert into todo select i, 'task ' || i from generate_series(1, 6) i")
    asked.write("update todo set task = 'changed' where id = 1")
    asked.write("delete from todo where id in (2, 3)")
    asked.write("insert into todo values (3, 'new'), (7, 'seven')")
    # Two rows change places.
    asked.write(
        "update todo set id = 0 where id = 5",
        "update todo set id = 5 where id = 6",
        "update todo set id = 6 where id = 0",
    )
    asked.write("update todo set id = 8 where id = 4", "update todo set id = 4 where id = 8")
    history = asked.ready()
    first = next(history.changes(oldest_first=True))
    found = {(each.key, each.previous_key): each for each in history.diff("todo", start=first.id)}
    assert [*found] == [("1", None), ("2", None), ("3", None), ("5", "6"), ("6", "5"), ("7", None)]
    assert found["5", "6"].columns == {"id": (6, 5)}
    assert found["3", None].columns == {"task": ("task 3", "new")}
    assert [found[key, None].kind for key in "127"] == ["changed", "removed", "added"]
    assert [*history.diff("todo", start=first.id, end=first.id)] == []


def test_after_a_truncate_no_row_is_an_earlier_one(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'a'), (2, 'b')")
    asked.write("update todo set id = 3 where id = 1")
    asked.write("truncate todo", "insert into todo values (3, 'new')")
    history = asked.ready()
    first = next(history.changes(oldest_first=True))
    found = [
        (each.kind, each.key, each.previous_key) for each in history.diff("todo", start=first.id)
    ]
    assert found == [("removed", "1", None), ("removed", "2", None), ("added", "3", None)]


def test_a_row_that_went_to_another_partition(tracked: Track) -> None:
    at = tracked(
        "create table todo (id int, region text, primary key (id, region))"
        " partition by list (region)",
        "create table todo_eu partition of todo for values in ('eu')",
        "create table todo_us partition of todo for values in ('us')",
        full=("public.todo_eu", "public.todo_us"),
    )
    at.source.execute("insert into todo values (1, 'eu'), (2, 'eu')")
    at.source.execute("update todo set region = 'us' where id = 1")
    at.catch_up()
    with bemi.History(at.settings.destination_url) as history:
        first = next(history.changes(oldest_first=True))
        assert [*history.diff("todo", start=first.id)] == [
            changed('["1","us"]', {"region": ("eu", "us")}, '["1","eu"]')
        ]
        assert [each.kind for each in history.diff("todo_eu", start=first.id)] == ["removed"]


def test_rows_without_a_key_are_counted(tracked: Track) -> None:
    at = tracked("create table plain (x int)", full=("public.plain",))
    at.source.execute("insert into plain values (1), (1), (2)")
    at.source.execute("delete from plain where x = 1")
    at.source.execute("insert into plain values (3), (3)")
    at.catch_up()
    with bemi.History(at.settings.destination_url) as history:
        first = next(history.changes(oldest_first=True))
        found = [*history.diff("plain", start=first.id)]
        assert [(each.kind, each.count, each.columns) for each in found] == [
            ("removed", 2, {"x": (1, None)}),
            ("added", 2, {"x": (None, 3)}),
        ]
        with pytest.raises(UsageError, match="have no key"):
            [*history.diff("plain", 1, start=first.id)]


def test_columns_that_came_and_went(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'a'), (2, 'b')")
    asked.at.source.execute("alter table todo add column note text, drop column data")
    asked.write("update todo set note = 'new' where id = 2")
    history = asked.ready()
    first = next(history.changes(oldest_first=True))
    assert [*history.diff("todo", start=first.id)] == [changed("2", {"note": (None, "new")})]


def test_both_ways_give_the_difference_of_the_states(tracked: Track, seed: int) -> None:
    """Rows that changes touched, asked for one by one; and the whole of both states."""
    at = tracked("create table todo (id int primary key, n int, body text)", full=("public.todo",))
    dice = random.Random(seed)
    at.source.execute("insert into todo select i, i, 'x' from generate_series(1, 12) i")
    at.catch_up()
    for _ in range(60):
        work(at, dice)
    at.catch_up()
    with bemi.History(at.settings.destination_url) as history:
        ends = sorted({change.commit_position for change in history.changes()})
        starts = [dice.randrange(len(ends) - 1) for _ in range(12)]
        pairs = [(ends[at], ends[min(at + dice.randint(1, 9), len(ends) - 1)]) for at in starts]
        ways = [each for pair in pairs for each in both_ways(at, history, *pair)]
    assert sum(ways) > 2, "the quick way is taken"


def work(at: Tracked, dice: random.Random) -> None:
    a, b = dice.sample(range(1, 20), 2)
    with at.source.transaction():
        for _ in range(dice.randint(1, 3)):
            at.source.execute(dice.choice(statements(a, b, dice.random() < 0.01)))


def statements(a: int, b: int, empties: bool) -> list[str]:
    if empties:
        return ["truncate todo"]
    free = f"not exists (select from todo where id = {b})"
    return [
        f"insert into todo values ({a}, {b}) on conflict (id) do update set n = {b}",
        f"update todo set n = n + 1, body = 'y' where id = {a}",
        f"update todo set id = {b} where id = {a} and {free}",
        f"delete from todo where id = {a}",
    ]


def both_ways(at: Tracked, history: bemi.History, start: int, end: int) -> Iterator[bool]:
    def state(position: int) -> dict[str | None, dict[str, Any]]:
        return {row.key: row.values for row in history.at(str(Lsn(position)), "todo")}

    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        last = newest(conn, "bemi", at.settings.source)
        first, last = (msgspec.structs.replace(last, position=Lsn(each)) for each in (start, end))
        asked = Compared("public.todo", first, last)
        quick = [*compare(conn, "bemi", asked, most=1000)]
        whole = [*compare(conn, "bemi", asked, most=-1)]
        stretch = Stretch(last.source, "public.todo", last.epoch, start, end)
        yield between.touched(conn, "bemi", stretch, 1000) is not None
    assert quick == whole
    rows = state(start)
    gone = {each.previous_key or each.key for each in whole if each.kind != "added"}
    kept = {key: row for key, row in rows.items() if key not in gone}
    for each in whole:
        if each.kind == "added":
            kept[each.key] = {name: new for name, (_, new) in each.columns.items()}
        else:
            row = rows[each.previous_key or each.key]
            assert {name: row[name] for name in each.columns} == {
                name: old for name, (old, _) in each.columns.items()
            }
            if each.kind == "changed":
                assert all(old != new for old, new in each.columns.values())
                assert each.key not in kept
                kept[each.key] = row | {name: new for name, (_, new) in each.columns.items()}
    assert kept == state(end)


@pytest.mark.parametrize(
    ("arguments", "times", "message"),
    [
        (("todo",), {}, "between two times"),
        (("todo",), {"start": "soon"}, "'soon' is not a time"),
        (("todo", ()), {"start": "1h"}, "at least one value"),
        (("00000000-0000-0000-0000-000000000000",), {"start": "1h"}, "between no times"),
        (("00000000-0000-0000-0000-000000000000", 1), {}, "between no times"),
        (("a\0",), {"start": "1h"}, "no text that a database can have"),
    ],
)
def test_what_means_nothing_is_refused(
    arguments: tuple[Any, ...], times: dict[str, Any], message: str
) -> None:
    with pytest.raises(bemi.BemiError, match=message):
        bemi.History("postgresql://nowhere").diff(*arguments, **times)


LONG = "The quick brown fox jumps over the lazy dog, and " * 4


def test_differences_are_shown_and_printed(asked: Asked) -> None:
    asked.write(
        f"insert into todo values (1, '{LONG}and then it sleeps.', 1.10,"
        """ '{"to": {"city": "Bern", "zip": 3000}, "tags": ["a", "b"]}'), (2, 'x', null, null)""",
        user_id=7,
    )
    asked.write(
        f"update todo set task = '{LONG}and now it sleeps.', data ="
        """ '{"to": {"city": "Basel", "zip": 3000}, "tags": ["a", "c", "b"]}' where id = 1""",
        user_id=8,
    )
    asked.write("delete from todo where id = 2", "insert into todo values (3, 'y')")
    asked.write("update todo set id = 4 where id = 3")
    asked.ready()
    *_, update, _, create = asked.json("changes")

    code, out, err = asked.bemi("diff", update["id"])
    assert (code, err) == (0, "")
    for told in ("user_id 8", "UPDATE", "data.to.city", "Basel", "data.tags[1]", "{+", "[-", "…"):
        assert told in out
    assert "3000" not in out
    assert "quick brown fox" not in out
    code, same, _ = asked.bemi("diff", "todo", "1", "--from", create["id"])
    assert code == 0
    assert same.startswith("1 changed\n")
    assert "~ changed 1" in same

    found = asked.json("diff", "todo", "--from", create["id"])
    assert [(each["kind"], each["key"]) for each in found] == [
        ("changed", "1"), ("removed", "2"), ("added", "4"),
    ]  # fmt: skip
    assert found[0]["columns"].keys() == {"task", "data"}
    assert found[1]["columns"]["task"] == {"before": "x"}
    assert found[2]["columns"]["task"] == {"after": "y"}
    _, out, _ = asked.bemi("diff", "todo", "--from", create["id"], "--ndjson")
    assert [json.loads(line, parse_float=str) for line in out.splitlines()] == found
    _, out, _ = asked.bemi("diff", "todo", "--from", create["id"], "--csv")
    rows = [*csv.DictReader(io.StringIO(out, newline=""))]
    assert {row["column"] for row in rows if row["kind"] == "changed"} == {"task", "data"}
    _, out, _ = asked.bemi("diff", "todo", "--from", create["id"])
    assert out.startswith("1 added, 1 removed, 1 changed\n")
    _, out, _ = asked.bemi("diff", "todo", "--from", create["id"], "--to", create["id"])
    assert out == "no difference\n"
    assert asked.json("diff", "todo", "--from", create["id"], "--to", create["id"]) == []


def test_wrong_questions_have_one_clear_message(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'a')")
    asked.write("update todo set task = 'b'")
    asked.ready()
    update, create = asked.json("changes")
    since = ("--from", create["id"])
    for arguments, code, message in (
        (("todo",), 2, "say from when on with --from"),
        (("todo", "--from", "soon"), 2, "is not a time"),
        (("todo", "--from", update["id"], "--to", create["id"]), 2, "would go back"),
        (("todo", "--from", "2020-01-01"), 1, "begins after"),
        (("todo", *since, "--to", "2999-01-01"), 1, "not known yet"),
        (("todo", *since, "--to", "FFFF/FFFFFFFF"), 1, "not captured yet"),
        (("tood", *since), 1, "public.tood is not in the history"),
        (("todo", "7", *since), 1, "had no row 7"),
        ((update["id"], *since), 2, "between no times"),
        (("00000000-0000-0000-0000-000000000000",), 1, "there is no change"),
        (("todo", *since, "--csv", "--ndjson"), 2, "two forms"),
    ):
        found, out, err = asked.bemi("diff", *arguments)
        assert (found, out) == (code, ""), (arguments, err)
        assert message in err, err
        assert err.count("error: ") == 1


def test_hostile_names_and_values(asked: Asked) -> None:
    hostile = ["'; drop table todo; --", '"', "%s", "{}", "\\", "\u202e", "\x1b[31m", "木🙂"]
    for number, value in enumerate(hostile):
        with asked.at.source.transaction():
            asked.at.source.execute("insert into todo values (%s, 'a')", [number])
        with asked.at.source.transaction():
            asked.at.source.execute("update todo set task = %s where id = %s", [value, number])
    asked.ready()
    create = asked.json("changes", "--oldest-first", "--limit", "1")[0]["id"]
    found = asked.json("diff", "todo", "--from", create)
    assert [each["columns"]["task"].get("after") for each in found] == hostile
    code, out, _ = asked.bemi("diff", "todo", "--from", create)
    assert (code, "\x1b" in out, "\u202e" in out) == (0, False, False)
    for value in (*hostile, "x" * 63):
        code, _, err = asked.bemi("diff", value, "--from", create)
        assert (code, "is not in the history" in err, "\x1b" in err) == (1, True, False)
        code, _, err = asked.bemi("diff", "todo", value, "--from", create)
        assert code in (1, 2)
        assert "\x1b" not in err


def test_a_reader_may_compare(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'milk')")
    asked.write("insert into todo values (2, 'oats')")
    asked.ready()
    created = asked.history.changes()
    start = str([*created][-1].id)
    asked.write("update todo set id = 3 where id = 1")
    asked.ready()
    url = asked.at.settings.destination_url
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role reader_of_differences login password 'x'")
        grant(conn, "bemi", "reader_of_differences")
    mine = make_conninfo(url, user="reader_of_differences", password="x")
    with bemi.History(mine) as history:
        expected = [*asked.history.diff("todo", start=start)]
        assert {each.kind for each in expected} == {"added", "changed"}
        assert [*history.diff("todo", start=start)] == expected
        assert [*history.diff("todo", "3", start=start)] == [
            each for each in expected if each.key == "3"
        ]


def test_an_alteration_that_a_look_has_seen_of_the_table_above(tracked: Track) -> None:
    """Then changes of rows are not all that happened to a partition."""
    t = Traveller(
        tracked(
            "create table p (id int primary key, a text) partition by range (id)",
            "create table p_1 partition of p for values from (0) to (10)",
            "create table p_2 partition of p for values from (10) to (20)",
        )
    )
    with t.history as history:
        t.at.source.execute("insert into p values (1, 'x'), (11, 'y')")
        start = t.now()
        t.at.source.execute("alter table p rename a to b")
        end = t.now()
        for table, keys in (("p", ["1", "11"]), ("p_1", ["1"]), ("p_2", ["11"])):
            found = sorted(
                history.diff(table, start=start, end=end), key=lambda each: str(each.key)
            )
            assert [each.key for each in found] == keys
            assert {column for each in found for column in each.columns} == {"a", "b"}
