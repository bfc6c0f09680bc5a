"""`bemi.History` answers the questions that people have."""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import bemi
from bemi.errors import SetupError, UnknownStateError, UsageError
from bemi.history.change import Change
from bemi.lsn import Lsn
from bemi.store.reader import StoredChange
from tests.integration.conftest import Track
from tests.support.tracked import Tracked

TABLE = "create table todo (id int primary key, task text, price numeric, done bool, tags text[])"
EMIT = "select pg_logical_emit_message(true, '_bemi', %s)"


class Shop:
    """A tracked table whose statements say who they are."""

    def __init__(self, at: Tracked) -> None:
        self.at = at
        self.history = bemi.History(at.settings.destination_url)

    def write(self, statement: str, context: str = "{}") -> None:
        with self.at.source.transaction():
            self.at.source.execute(EMIT, [context])
            self.at.source.execute(statement.encode())

    def ready(self) -> bemi.History:
        self.at.catch_up()
        return self.history


@pytest.fixture(params=["full", "default"])
def shop(request: pytest.FixtureRequest, tracked: Track) -> Iterator[Shop]:
    """With whole old rows in the log, and without."""
    full = ("public.todo",) if request.param == "full" else ()
    made = Shop(tracked(TABLE, full=full))
    yield made
    made.history.close()


def test_a_change_has_the_columns_of_the_relation() -> None:
    assert Change.__struct_fields__ == StoredChange.__struct_fields__


def test_changes_have_values_of_python(shop: Shop) -> None:
    shop.write(
        "insert into todo values (1, 'milk', 1.10, false, '{a}')", '{"user_id": 7, "n": 1.50}'
    )
    shop.write("update todo set price = 12345678901234567890.5, done = true")
    update, create = shop.ready().changes()
    assert (create.operation, create.before) == ("CREATE", {})
    assert create.after == {
        "id": 1,
        "task": "milk",
        "price": Decimal("1.10"),
        "done": False,
        "tags": ["a"],
    }
    assert str(create.context["n"]) == "1.50"
    assert update.diff() == {
        "price": (Decimal("1.10"), Decimal("12345678901234567890.5")),
        "done": (False, True),
    }
    assert shop.history.change(update.id) == shop.history.change(str(update.id)) == update
    with pytest.raises(UnknownStateError, match="there is no change"):
        shop.history.change(uuid.uuid4())


def test_filters_narrow_down(shop: Shop) -> None:
    shop.write("insert into todo values (1, 'milk', 1.10, false), (2, 'oats', 2, null)")
    shop.write("update todo set done = true where id = 1", '{"user_id": 7, "tenant": {"id": "a"}}')
    shop.write("delete from todo where id = 2", '{"user_id": "7", "request_id": "r-1"}')
    history = shop.ready()

    def found(**filters: Any) -> list[tuple[str, str | None]]:
        return [(change.operation[0], change.primary_key) for change in history.changes(**filters)]

    everything = [("D", "2"), ("U", "1"), ("C", "2"), ("C", "1")]
    assert found() == everything
    assert found(oldest_first=True) == everything[::-1]
    assert found(table="todo", key=1) == found(key="1") == [("U", "1"), ("C", "1")]
    assert found(operation="delete") == [("D", "2")]
    assert found(operation=["create", "update"]) == everything[1:]
    assert found(context={"user_id": 7}) == found(context={"user_id": "7"}) == everything[:2]
    assert found(context={"tenant.id": "a"}) == found(context={"tenant": {"id": "a"}})
    assert found(context={"tenant.id": "a"}) == [("U", "1")]
    assert found(trace="r-1") == [("D", "2")]
    assert found(after={"done": True}) == [("U", "1")]
    assert found(after={"price": Decimal("1.10")}, operation="create") == [("C", "1")]
    assert found(after={"done": None}) == [("C", "2")]
    assert found(before={"task": "oats"}) == [("D", "2")]
    assert found(changed="done") == [("U", "1")]
    assert found(since="1h") == everything
    assert found(until="1h") == found(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert found(after={"price": 2.0}) == [("C", "2")]
    first, *_, last = history.changes(oldest_first=True)
    assert found(from_position=last.commit_position) == [("D", "2")]
    assert found(to_position=first.commit_position) == everything[2:]
    assert found(transaction=last.transaction_id) == [("D", "2")]
    assert found(source=last.source) == everything
    assert found(source="elsewhere") == found(table="elsewhere") == []


def test_pages_follow_each_other(shop: Shop) -> None:
    for number in range(7):
        shop.write(f"insert into todo values ({number}), ({number + 100})")
    history = shop.ready()
    for oldest_first in (False, True):
        whole = [*history.changes(oldest_first=oldest_first)]
        paged, cursor = [], None
        while page := [*history.changes(limit=3, behind=cursor, oldest_first=oldest_first)]:
            paged += page
            cursor = page[-1].cursor
        assert paged == whole
        assert len(whole) == 14


def test_a_row_is_followed_under_its_key(shop: Shop) -> None:
    shop.write("insert into todo values (1, 'milk')")
    shop.write("update todo set id = 2, task = 'oats'")
    shop.write("delete from todo")
    shop.write("insert into todo values (1, 'other')")
    history = shop.ready()
    assert [change.operation for change in history.row("todo", 1)] == ["CREATE", "UPDATE", "CREATE"]
    assert [change.operation for change in history.row("todo", "2")] == ["DELETE", "UPDATE"]
    assert [each.operation for each in history.row("todo", 2, operation="delete")] == ["DELETE"]
    for ask in (history.row, history.blame, lambda *row: history.at("1h", *row)):
        with pytest.raises(bemi.BemiError, match="a key of the type NoneType"):
            ask("todo", None)  # as an object's that was not stored yet


def test_who_set_each_column(shop: Shop) -> None:
    shop.write("insert into todo values (1, 'milk', 1, false, '{}')", '{"user_id": "ann"}')
    shop.write("update todo set task = 'oats'", '{"user_id": "bob"}')
    shop.write("update todo set task = 'milk', done = true", '{"user_id": "cid"}')
    shop.write("update todo set price = 1", '{"user_id": "nobody"}')
    shop.write("update todo set id = 2", '{"user_id": "eve"}')
    history = shop.ready()

    def told() -> dict[str, tuple[object, object, object, bool]]:
        return {
            each.column: (each.value, each.previous, each.change.context["user_id"], each.exact)
            for each in history.blame("todo", 2)
        }

    expected: dict[str, tuple[object, object, object, bool]] = {
        "id": (2, 1, "eve", True),
        "task": ("milk", "oats", "cid", True),
        "price": (1, None, "ann", True),
        "done": (True, False, "cid", True),
        "tags": ([], None, "ann", True),
    }
    assert told() == expected
    shop.write("delete from todo", '{"user_id": "dan"}')
    shop.write("insert into todo values (1, 'another one')")
    shop.at.catch_up()
    assert told() == expected, "as it last was"
    assert {each.change.operation for each in history.blame("todo", 1)} == {"CREATE"}
    with pytest.raises(UnknownStateError, match="no change of todo 3"):
        history.blame("todo", 3)


def test_a_row_is_not_taken_for_another_one_that_had_its_key(tracked: Track) -> None:
    """Of a row that was there before, whose birth nobody saw."""
    at = tracked(
        "create table todo (id int primary key, task text)",
        "insert into todo values (1, 'a'), (2, 'b')",
    )
    shop = Shop(at)
    shop.write("update todo set id = 3, task = 'c' where id = 1", '{"user_id": "ann"}')
    shop.write("update todo set id = 1 where id = 2", '{"user_id": "bob"}')
    shop.write("update todo set task = task where id = 1", '{"user_id": "cid"}')
    found = {each.column: each for each in shop.ready().blame("todo", 1)}
    shop.history.close()
    assert found["id"].change.context == {"user_id": "bob"}
    assert (found["id"].exact, found["id"].previous) == (True, 2)
    assert found["task"].value == "b"
    assert (found["task"].exact, found["task"].change.context) == (False, {"user_id": "bob"})


def test_who_set_a_column_that_was_not_sent(tracked: Track) -> None:
    """A long value that an update left alone is not in the log; who set it is known."""
    at = Shop(tracked("create table todo (id int primary key, body text, n int)"))
    at.write(
        "insert into todo select 1, string_agg(md5(i::text), '') from generate_series(1, 500) i"
    )
    at.write("update todo set n = 1", '{"user_id": "bob"}')
    at.write("update todo set n = 1", '{"user_id": "cid"}')
    found = {each.column: each for each in at.ready().blame("todo", 1)}
    at.history.close()
    assert found["body"].change.operation == "CREATE"
    assert found["n"].change.context == {"user_id": "bob"}
    assert all(each.exact for each in found.values())


def test_a_row_is_followed_from_partition_to_partition(tracked: Track) -> None:
    at = Shop(
        tracked(
            "create table todo (id int, region text, task text, primary key (id, region))"
            " partition by list (region)",
            "create table todo_eu partition of todo for values in ('eu')",
            "create table todo_us partition of todo for values in ('us')",
            full=("public.todo_eu", "public.todo_us"),
        )
    )
    at.write("insert into todo values (1, 'eu', 'milk')", '{"user_id": "ann"}')
    at.write("update todo set region = 'us'", '{"user_id": "bob"}')
    history = at.ready()
    expected = {
        "id": (1, None, "ann", True),
        "region": ("us", "eu", "bob", True),
        "task": ("milk", None, "ann", True),
    }
    for key in ((1, "us"), '["1","us"]', '[1, "us"]'):
        assert {
            each.column: (each.value, each.previous, each.change.context["user_id"], each.exact)
            for each in history.blame("todo", key)
        } == expected
    at.history.close()


def test_a_key_is_known_however_it_is_spelled(tracked: Track) -> None:
    at = Shop(tracked("create table todo (a int, b text, n int, primary key (a, b))"))
    long = "x" * 3000
    at.write("insert into todo values (1, 'b', 1)", '{"user_id": "ann"}')
    at.write("update todo set b = 'c', n = 2", '{"user_id": "bob"}')
    with at.at.source.transaction():
        at.at.source.execute("insert into todo values (2, %s, 1)", [long])
    history = at.ready()
    for key in ((1, "b"), '["1","b"]', '[1, "b"]'):
        assert [each.operation for each in history.row("todo", key)] == ["UPDATE", "CREATE"]
        # The row is another one's now: as it last was under this key.
        assert {each.column: each.value for each in history.blame("todo", key)}["n"] == 1
    for key in ((2, long), f'["2","{long}"]', f'[2, "{long}"]'):
        assert len([*history.row("todo", key)]) == 1
    at.history.close()


def test_numbers_and_depths_beyond_python(tracked: Track) -> None:
    """Python makes no int of more than 4,300 digits, and reads no JSON of 1,000 levels: such a
    value is kept as a text."""
    at = Shop(tracked("create table todo (id int primary key, n numeric, deep jsonb)"))
    deep = "[" * 3000 + "]" * 3000
    at.write(f"insert into todo values (1, repeat('9', 6000)::numeric, '{deep}')")
    (change,) = at.ready().changes()
    at.history.close()
    assert str(change.after["n"]) == "9" * 6000
    assert change.after["deep"] == deep


def test_what_one_request_did(shop: Shop) -> None:
    shop.write("insert into todo values (1)", '{"request_id": "r-1"}')
    shop.write("insert into todo values (2)", '{"request_id": "r-2"}')
    shop.write("update todo set task = 'a'", '{"request_id": "job", "trace_id": "r-1"}')
    shop.write("delete from todo where id = 2", '{"request_id": 7}')
    done = [(each.operation, each.primary_key) for each in shop.ready().trace("r-1")]
    assert done == [("CREATE", "1"), ("UPDATE", "1"), ("UPDATE", "2")]
    assert [each.operation for each in shop.history.trace("7")] == ["DELETE"]


HOSTILE = [
    "'; drop table todo; --",
    '"',
    "%s",
    "{}",
    "\\",
    "a'b\"c",
    "\u202e",
    "x" * 63,
    "木",
    "%(a)s",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_and_values_are_data(shop: Shop, value: str) -> None:
    with shop.at.source.transaction():
        shop.at.source.execute(EMIT, ["{}"])
        shop.at.source.execute("insert into todo values (1, %s)", [value])
    history = shop.ready()
    assert [each.after["task"] for each in history.changes(after={"task": value})] == [value]
    for filters in (
        {"table": value}, {"key": value}, {"changed": value}, {"source": value}, {"trace": value},
        {"context": {value: value}}, {"before": {value: value}}, {"after": {value: None}},
    ):  # fmt: skip
        assert [*history.changes(**filters)] == []


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"operation": "upsert"}, "there is no operation UPSERT"),
        ({"operation": 5}, "operation: 5 is no Iterable"),
        ({"operation": [5]}, "operation: 5 is no str"),
        ({"since": "soon"}, "'soon' is not a time"),
        ({"since": date(2026, 1, 1)}, "since: .* is no datetime"),
        ({"key": ()}, "a key has at least one value"),
        ({"limit": 0}, "limit: it is at least 1"),
        ({"limit": -1}, "limit: -1 is out of range"),
        ({"transaction": "abc"}, "transaction: 'abc' is no int"),
        ({"transaction": True}, "transaction: True is no int"),
        ({"oldest_first": 1}, "oldest_first: 1 is no bool"),
        ({"id": 7}, "id: 7 is no UUID"),
        ({"table": "a\0"}, "table: .* is no text that a database can have"),
        ({"key": "\udcff"}, "is no text that a database can have"),
        ({"context": "a=b"}, "context: 'a=b' is no Mapping"),
        ({"after": {"tags": [1]}}, "after: values of the type list are not looked for"),
        ({"until": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"behind": "page 2"}, "is not the cursor of a page"),
        ({"id": "7"}, "'7' is not the id of a change"),
        ({"from_position": "here"}, "here"),
        ({"tabel": "todo"}, "there is no filter tabel"),
        ({"key": object()}, "a key of the type object"),
    ],
)
def test_what_means_nothing_is_refused(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(bemi.BemiError, match=message):
        bemi.History("postgresql://nowhere").changes(**filters)


@pytest.mark.parametrize("name", ["\0", "\ud800", 5])
def test_what_can_be_no_name_is_refused_before_it_is_asked_for(name: Any) -> None:
    at = "0/1"
    with bemi.History("postgresql://127.0.0.1:1/x") as history:
        for ask in (
            lambda: history.at(at, name),
            lambda: history.at(at, "t", source=name),
            lambda: history.diff(name, start=at),
            lambda: history.diff("t", start=at, source=name),
            lambda: history.blame(name, 1),
            lambda: history.blame("t", 1, source=name),
            lambda: history.change("00000000-0000-0000-0000-000000000000", source=name),
            lambda: history.travel(at, into=name),
            lambda: history.travel(at, tables=[name]),
            lambda: history.travel(at, source=name),
            lambda: history.drop_travel(name),
            lambda: history.restore(at, name),
            lambda: history.restore(at, "fresh", tables=[name]),
            lambda: history.restore(at, "fresh", source=name),
        ):
            with pytest.raises(UsageError, match=r"is no (text that|str)"):
                ask()
        for into in ("", "pg_fresh", "x" * 64):
            for ask in (lambda: history.travel(at, into=into), lambda: history.restore(at, into)):  # noqa: B023
                with pytest.raises(UsageError, match="can be the name of no schema"):
                    ask()
        with pytest.raises(UsageError, match="wait: 'soon' is no number of seconds"):
            history.at(at, "t", wait="soon")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="wait: nan is no number of seconds"):
            history.restore(at, "fresh", wait=float("nan"))
        with pytest.raises(UsageError, match="built in the destination") as caught:
            history.travel(at, into="postgresql://x:secret@localhost/y")
        assert "secret" not in str(caught.value)


def test_where_there_is_no_history_it_says_so(source_url: str) -> None:
    with bemi.History(source_url) as history, pytest.raises(SetupError, match="no schema"):
        [*history.changes()]
    with pytest.raises(UsageError):
        history.changes(operation="upsert")


def test_rows_as_they_were(shop: Shop) -> None:
    shop.write("insert into todo values (1, 'milk', 1.10), (2, 'oats', null)")
    shop.write("update todo set task = 'oat milk', id = 3 where id = 1")
    shop.write("delete from todo where id = 2")
    history = shop.ready()
    delete, update, *_, create = history.changes()

    def tasks(when: Any, *key: object) -> dict[str | None, object]:
        return {row.key: row.values["task"] for row in history.at(when, "todo", *key)}

    assert tasks(create.id) == {"1": "milk", "2": "oats"}
    assert tasks(str(update.id)) == {"3": "oat milk", "2": "oats"}
    assert tasks(delete.committed_at) == {"3": "oat milk"}
    assert tasks(str(Lsn(delete.commit_position))) == {"3": "oat milk"}
    assert tasks(create.id, 1) == {"1": "milk"}
    assert tasks(update.id, 1) == tasks(delete.id, "2") == {}
    assert tasks(update.id, 3) == {"3": "oat milk"}
    (row,) = history.at(update.committed_at, "public.todo", 3)
    assert row.values["price"] == Decimal("1.10")
    for when, table, message in (
        ("2020-01-01", "todo", "begins after"),
        (datetime.now(UTC) + timedelta(days=1), "todo", "not known yet"),
        ("FFFF/FFFFFFFF", "todo", "not captured yet"),
        (create.id, "nothing", "not in the history"),
        (uuid.uuid4(), "todo", "there is no change"),
    ):
        with pytest.raises(UnknownStateError, match=message):
            list(history.at(when, table))
    with pytest.raises(UsageError, match="'once' is not a time"):
        history.at("once", "todo")


def test_questions_within_questions(shop: Shop) -> None:
    shop.write("insert into todo values (1), (2), (3)")
    history = shop.ready()
    for change in history.changes():
        assert history.change(change.id) == change
        assert [each.change for each in history.blame("todo", change.after["id"])] == [change] * 5
    assert len(history._connections.idle) == 2
    for _ in history.changes():
        break
    for _ in history.at(change.id, "todo"):
        break
    assert len(history._connections.idle) == 2
    assert len([*history.at(change.id, "todo")]) == len([*history.changes()]) == 3


def test_a_history_can_be_closed_and_asked_again(shop: Shop) -> None:
    shop.write("insert into todo select generate_series(1, 3000)")
    history = shop.ready()
    changes = [*history.changes()]
    assert len(changes) == 3000
    with history:
        begun = (history.changes(), history.at(changes[0].id, "todo"))
        for some in begun:
            next(some)
    for some in begun:
        with pytest.raises(bemi.BemiError):
            list(some)
    assert len([*history.changes(limit=2)]) == 2
