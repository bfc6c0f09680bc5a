"""How much happened when: counted by the destination, the same in Python and on the terminal."""

import csv
import io
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import bemi
from bemi.errors import UsageError
from bemi.store.trends import Count
from tests.support.asked import Asked


@pytest.fixture
def spread(asked: Asked) -> Asked:
    """Eight changes on the first days of March 2026, by three users and nobody."""
    for number, user in enumerate(("ann", "bob", "ann", None, "cid", "ann", "bob", 7)):
        context: dict[str, object] = {"tenant": {"id": number % 2}}
        asked.write(f"insert into todo values ({number})", user_id=user, **context)
    asked.ready()
    asked.at.destination.execute("select bemi.ensure_partitions('2026-03-01', '2026-03-31')")
    for number, when in enumerate(
        (
            "2026-03-01 00:00:00", "2026-03-01 00:59:59.999999", "2026-03-01 01:00:00",
            "2026-03-01 05:30:00", "2026-03-02 00:00:00", "2026-03-04 23:59:59",
            "2026-03-04 23:59:59.5", "2026-03-05 00:00:00",
        )
    ):  # fmt: skip
        asked.at.destination.execute(
            "update bemi.row_changes set committed_at = %s where primary_key = %s",
            [f"{when}+00", str(number)],
        )
    # The worker may have counted them by the time that they had.
    asked.at.destination.execute("truncate bemi.counted, bemi.hourly_counts, bemi.hourly_users")
    asked.at.destination.execute("update bemi.checkpoints set uncounted_since = '2026-03-01'")
    return asked


def day(number: int) -> datetime:
    return datetime(2026, 3, number, tzinfo=UTC)


def test_each_time_has_its_count(spread: Asked) -> None:
    spread.history.close()
    march = {"since": "2026-03-01", "until": "2026-03-06"}
    assert [*spread.history.stats(every="day", **march)] == [  # type: ignore[arg-type]
        Count(day(1), (), 4),
        Count(day(2), (), 1),
        Count(day(3), (), 0),
        Count(day(4), (), 2),
        Count(day(5), (), 1),
        Count(day(6), (), 0),
    ]
    months = [*spread.history.stats(every="month", since="2026-02-14", until="2026-04-01")]
    assert [(each.start.month, each.count) for each in months] == [(2, 0), (3, 8), (4, 0)]
    weeks = [*spread.history.stats(every="week", since="2026-03-01", until="2026-03-05")]
    assert [(each.start.day, each.count) for each in weeks] == [(23, 4), (2, 4)], "from Monday"
    hours = [*spread.history.stats(every="hour", since="2026-03-01", until="2026-03-01 05:59")]
    assert [each.count for each in hours] == [2, 1, 0, 0, 0, 1]
    minutes = [*spread.history.stats(since="2026-03-01", until="2026-03-01 00:59:59.999999")]
    assert len(minutes) == 60
    assert (minutes[0].count, minutes[-1].count) == (1, 1)


def test_what_fits_the_range(asked: Asked) -> None:
    lengths = {"minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400}
    for span, unit in (
        ("1h", "minute"), ("2h", "hour"), ("60h", "hour"), ("3d", "day"), ("9w", "week"),
    ):  # fmt: skip
        first, second, *_ = asked.history.stats(since=span)
        assert (second.start - first.start).total_seconds() == lengths[unit], span


def test_counts_are_those_of_the_changes(spread: Asked) -> None:
    """Every filter means the same as in a listing; groups are told apart as there."""
    history = spread.history
    for filters in (
        {},
        {"context": {"user_id": "ann"}},
        {"key": 3},
        {"table": "todo", "operation": "create"},
        {"after": {"id": 2}},
        {"since": "2026-03-02", "context": {"tenant.id": 1}},
        {"until": "2026-03-04", "changed": "task"},
        {"operation": "delete"},
    ):
        for by in ((), ("user",), ("context.tenant.id", "table"), ("operation", "context.user_id")):
            asked: dict[str, Any] = {"until": "2026-03-06", **filters}
            expected: Counter[tuple[datetime, ...]] = Counter()
            if len(by) < 2:
                for group in history.groups(*(by or ("table",)), **asked):
                    for change in group.changes:
                        midnight = change.committed_at.replace(hour=0, minute=0, second=0)
                        values = (group.value,) if by else ()
                        expected[midnight.replace(microsecond=0), *values] += 1
            counts = [*history.stats(by=by, every="day", **asked)]
            found = {(each.start, *each.values): each.count for each in counts if each.count}
            assert len({(each.start, *each.values) for each in counts}) == len(counts)
            assert sum(found.values()) == len([*history.changes(**asked)])
            if len(by) < 2:
                assert found == expected


def test_the_largest_come_first_and_the_others_together(spread: Asked) -> None:
    march: dict[str, Any] = {"since": "2026-03-01", "until": "2026-03-05", "every": "month"}
    assert [*spread.history.stats(by="user", **march)] == [
        Count(day(1), ("ann",), 3),
        Count(day(1), ("bob",), 2),
        Count(day(1), ("7",), 1),
        Count(day(1), ("cid",), 1),
        Count(day(1), (None,), 1),
    ]
    assert [*spread.history.stats(by="user", top=2, **march)] == [
        Count(day(1), ("ann",), 3),
        Count(day(1), ("bob",), 2),
        Count(day(1), (None,), 3, others=True),
    ]
    march["every"] = "day"
    two = [*spread.history.stats(by=("user", "table"), top=1, **march)]
    assert len(two) == 2 * 5, "each has a count on each day"
    assert sum(each.count for each in two) == 8


def test_rows_for_programs(spread: Asked) -> None:
    march = ("--since", "2026-03-01", "--until", "2026-03-03")
    expected = [
        {"start": f"2026-03-0{start}T00:00:00Z", "context.tenant.id": tenant, "count": count}
        for start, tenant, count in (
            (1, "0", 2), (1, "1", 2), (2, "0", 1), (2, "1", 0), (3, "0", 0), (3, "1", 0),
        )
    ]  # fmt: skip
    flags = (*march, "--by", "context.tenant.id", "--every", "day")
    assert spread.json("stats", *flags) == expected
    _, out, _ = spread.bemi("stats", *flags, "--ndjson")
    assert [json.loads(line) for line in out.splitlines()] == expected
    _, out, _ = spread.bemi("stats", *flags, "--csv")
    rows = [*csv.DictReader(io.StringIO(out, newline=""))]
    assert rows == [{**each, "count": str(each["count"])} for each in expected]
    (first, *_) = spread.json("stats", *flags, "--top", "1")
    assert first["others"] is False


def test_bars_for_people(spread: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--since", "2026-03-01", "--until", "2026-03-05")
    code, out, err = spread.bemi("stats", *flags, "--every", "day")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lengths = {}
    for line in out.splitlines()[4:]:
        when, number, *bar = line.split()
        lengths[when[-2:]] = (number, len("".join(bar)))
    assert lengths == {
        "01": ("4", 60), "02": ("1", 15), "03": ("0", 0), "04": ("2", 30), "05": ("1", 15),
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "50")
    _, out, _ = spread.bemi("stats", *flags, "--by", "user", "--top", "1")
    assert max(map(len, out.splitlines()[2:])) <= 50
    assert "others" in out
    assert "8 changes from" in out


def test_hostile_values_of_groups(asked: Asked) -> None:
    keys = ['"; drop table todo; --', "'", "%s", "%(a)s", "\u202e", "🙂", "{}", "x" * 63]
    asked.write("insert into todo values (1)", **{key: "\x1b[31m" + key for key in keys})
    asked.ready()
    for key in keys:
        found = [*asked.history.stats(by=(f"context.{key}", "table"), every="month")]
        assert {each.values for each in found} == {("\x1b[31m" + key, "public.todo")}
        code, out, _ = asked.bemi("stats", "--by", f"context.{key}")
        assert (code, "\x1b" in out, "\u202e" in out) == (0, False, False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": ("table", "user", "source")}, "at most 2 different things"),
        ({"by": ("table", "table")}, "at most 2 different things"),
        ({"by": "tabel"}, "nothing that changes have"),
        ({"every": "year"}, "'year' is no time to count in"),
        ({"top": 0}, "top: 0"),
        ({"top": 1 << 63}, "top: 9223372036854775808"),
        ({"top": "3"}, "top: '3'"),
        ({"by": 3}, "3 is no"),
        ({"limit": 3}, "counts have no pages"),
        ({"oldest_first": True}, "counts have no pages"),
        ({"since": "1h", "until": "2h"}, "is after until"),
        ({"tabel": "todo"}, "there is no filter tabel"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bemi.History("postgresql://nowhere").stats(**given)


def test_wrong_use_of_the_command(asked: Asked) -> None:
    for flags, message in (
        (("--every", "year"), "--every"),
        (("--by", "table", "--by", "user", "--by", "source"), "at most 2"),
        (("--by", "tabel"), "nothing that changes have"),
        (("--top", "0"), "--top"),
        (("--limit", "3"), "--limit"),
        (("--ndjson", "--csv"), "two forms"),
        (("--since", "2025-01-01", "--every", "minute"), "more than can be shown"),
    ):
        code, out, err = asked.bemi("stats", *flags)
        assert (code, out) == (2, ""), flags
        assert message in err
        assert "\nfix: " in err
    code, out, _ = asked.bemi("stats")
    assert (code, out.startswith("the history has no changes yet")) == (0, True)
    assert asked.json("stats") == []
    asked.write("insert into todo values (1)")
    asked.ready()
    code, out, _ = asked.bemi("stats", "--table", "tood")
    assert (code, "no change of a table tood" in out) == (0, True)
    assert (
        asked.json("stats", "--since", "3h", "--table", "tood", "--every", "hour")[0]["count"] == 0
    )


def test_what_is_to_come_is_not_counted(asked: Asked) -> None:
    asked.write("insert into todo values (1)")
    found = [*asked.ready().stats(since="3d", until="2999-01-01", every="day")]
    assert found[-1].start <= datetime.now(UTC)
    assert datetime.now(UTC) - found[-1].start < timedelta(days=2)
    assert sum(each.count for each in found) == 1
