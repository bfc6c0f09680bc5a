"""Changes are counted by the hour; with what is not counted yet, sums are those of the changes."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import bemi
from bemi.history import trends
from bemi.history.asking import dimension_of, filters_of
from bemi.store import hourly
from bemi.store.filters import Filters
from bemi.store.scope import Scope, Visible
from tests.support.asked import Asked

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
SPAN = timedelta(days=3)
EARLIER = timedelta(microseconds=1)
BY: tuple[tuple[str, ...], ...] = (
    (), ("table",), ("user",), ("source", "operation"), ("user", "source"),
)  # fmt: skip


_count = hourly.count


@pytest.fixture(autouse=True)
def _nobody_else_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does, when it likes to."""
    monkeypatch.setattr(hourly, "count", lambda *_: None)


def count(asked: Asked) -> None:
    with psycopg.connect(asked.at.settings.destination_url, autocommit=True) as conn:
        _count(conn, "bemi", asked.at.settings.source)


def spread(asked: Asked, dice: random.Random) -> None:
    """Give what is not counted yet other times, as a source would whose clock jumps."""
    asked.at.destination.execute("select bemi.ensure_partitions('2026-02-28', '2026-03-31')")
    uncounted = asked.at.query(
        "select id from bemi.row_changes where commit_position >="
        " coalesce((select max(position) from bemi.counted), 0)"
    )
    times = []
    for row in uncounted:
        when = BEGIN + dice.choice([timedelta(hours=dice.randrange(72)), dice.random() * SPAN])
        when -= dice.choice([timedelta(0), EARLIER])
        times.append(when)
        asked.at.destination.execute(
            "update bemi.row_changes set committed_at = %s where id = %s", [when, row["id"]]
        )
    if times:
        asked.at.destination.execute(
            "update bemi.checkpoints set uncounted_since = %s", [min(times)]
        )


def expected(history: bemi.History, by: tuple[str, ...], **filters: Any) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for change in history.changes(**filters):
        when = change.committed_at.replace(minute=0, second=0, microsecond=0)
        user = change.context.get("user_id")
        of = {
            "table": f"{change.schema}.{change.table}",
            "operation": change.operation,
            "source": change.source,
            "user": None if user is None else str(user),
        }
        found[when, *(of[name] for name in by)] += 1
    return found


def test_sums_are_those_of_the_changes(asked: Asked, seed: int) -> None:
    dice = random.Random(seed)
    asked.at.source.execute("create table more (id int primary key)")
    n = 0
    for turn in range(6):
        for _ in range(dice.randrange(1, 8)):
            n += 1
            user: Any = dice.choice([{}, {"user_id": "ann"}, {"user_id": 7}, {"user_id": ""}])
            asked.write(
                f"insert into todo select generate_series({n * 10}, {n * 10 + dice.randrange(5)})",
                *([f"delete from todo where id = {n * 10}"] if dice.random() < 0.5 else []),
                **user,
            )
        asked.ready()
        spread(asked, dice)
        if turn in (1, 3, 4):
            count(asked)
        for _ in range(12):
            ends = sorted(
                BEGIN
                + dice.choice([timedelta(hours=dice.randrange(72)), dice.random() * SPAN])
                - dice.choice([timedelta(0), EARLIER])
                for _ in range(2)
            )
            filters: dict[str, Any] = {}
            if dice.random() < 0.8:
                filters["since"] = ends[0]
            if dice.random() < 0.8:
                filters["until"] = ends[1]
            if dice.random() < 0.3:
                filters["source"] = dice.choice([asked.at.settings.source, "another"])
            by = dice.choice(
                [(), ("table",), ("user",), ("source", "operation"), ("user", "source")]
            )
            if "user" not in by and dice.random() < 0.5:
                filters |= dice.choice([{"table": "todo"}, {"operation": ["delete", "create"]}])
            counted = asked.history.stats(by=by, every="hour", **filters)
            found = Counter({(each.start, *each.values): each.count for each in counted})
            assert +found == expected(asked.history, by, **filters), (by, filters)
    (stored,) = asked.at.query("select count(*) as n from bemi.row_changes")
    assert stored["n"] > 20


def test_what_is_counted_is_not_read_again(asked: Asked) -> None:
    asked.write("insert into todo select generate_series(1, 10)", user_id=1)
    asked.ready()
    count(asked)
    asked.at.destination.execute("update bemi.hourly_counts set changes = 1000")
    asked.at.destination.execute("update bemi.hourly_users set changes = 2000")
    asked.write("insert into todo values (11)")
    asked.ready()
    assert sum(each.count for each in asked.history.stats(every="hour")) == 1001
    assert sum(each.count for each in asked.history.stats(every="month", table="todo")) == 1001
    assert sum(each.count for each in asked.history.stats(every="day", by=("user",))) == 2001
    # Hours don't tell these.
    assert sum(each.count for each in asked.history.stats(every="minute")) == 11
    assert sum(each.count for each in asked.history.stats(every="hour", key=11)) == 1


def test_what_is_stored_while_others_are_counted_is_counted_next(asked: Asked) -> None:
    asked.write("insert into todo values (1)")
    asked.ready()
    source = asked.at.settings.source
    assert asked.at.query("select bemi.mark_uncounted(%s) as m", [source]) == [{"m": True}]
    asked.write("insert into todo values (2)")
    asked.ready()
    assert sum(each.count for each in asked.history.stats(every="hour")) == 2
    asked.at.query("select bemi.count_changes(%s)", [source])
    assert asked.at.query("select sum(changes)::int as n from bemi.hourly_counts") == [{"n": 1}]
    assert sum(each.count for each in asked.history.stats(every="hour")) == 2
    # One that marked, and was killed before it counted.
    asked.at.query("select bemi.mark_uncounted(%s)", [source])
    asked.write("insert into todo values (3)")
    asked.ready()
    for _ in range(2):
        count(asked)
        assert asked.at.query("select sum(changes)::int as n from bemi.hourly_counts") == [{"n": 3}]
    assert sum(each.count for each in asked.history.stats(every="hour")) == 3
    (checkpoint,) = asked.at.query("select * from bemi.checkpoints")
    assert checkpoint["uncounted_since"] is checkpoint["counting_since"] is None
    assert asked.at.query("select bemi.mark_uncounted(%s) as m", [source]) == [{"m": False}]


def test_the_worker_notes_since_when_nothing_is_counted(asked: Asked) -> None:
    for number in range(5):
        asked.write(f"insert into todo values ({number})")
    asked.ready()
    (noted,) = asked.at.query("select uncounted_since as since from bemi.checkpoints")
    (first,) = asked.at.query("select min(committed_at) as since from bemi.row_changes")
    assert noted["since"] == first["since"]


@pytest.mark.parametrize(
    ("filters", "by", "every"),
    [
        ({"context": {"user_id": 1}}, ("table",), "day"),
        ({"table": "todo"}, ("user",), "day"),
        ({}, ("transaction",), "day"),
        ({}, ("table",), "minute"),
        ({"since": BEGIN, "until": BEGIN + timedelta(minutes=59)}, (), "hour"),
    ],
)
def test_hours_that_do_not_say_enough(
    filters: dict[str, Any], by: tuple[str, ...], every: str
) -> None:
    found = hourly.relation(
        "bemi", filters_of(**filters), [dimension_of(each) for each in by], every
    )
    assert found is None


def test_a_scope_holds_for_hours(asked: Asked) -> None:
    asked.write("insert into todo values (1)")
    asked.ready()
    count(asked)
    with asked.history._connected() as conn:
        for table, expected in (("public.todo", 1), ("public.other*", 0)):
            scope = Scope((Visible(table),))
            filters = Filters(scope=scope, since=BEGIN)
            assert hourly.relation("bemi", filters, [], "month") is not None
            assert counted(conn, filters) == expected


def counted(conn: Any, filters: Filters) -> int:
    trend = trends.plan(conn, "bemi", filters, every="month", now=datetime.now(UTC))
    assert trend is not None
    return sum(each.count for each in trends.counts(conn, "bemi", filters, trend))
