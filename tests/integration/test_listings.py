"""Listings as CSV and in groups."""

import csv
import io
import json

import pytest

from bemi.errors import UsageError
from tests.support.asked import Asked

HOSTILE = "a \"quoted\"; 'b', =1+1\r\nand a line \u202e木🙂"


def test_csv_gives_every_value_back(asked: Asked) -> None:
    with asked.at.source.transaction():
        asked.at.source.execute(
            "insert into todo values (1, %s, 1.10, '{\"a\": [1, null]}'), (2, '', null, null)",
            [HOSTILE],
        )
    asked.write("update todo set price = 12345678901234567890.50 where id = 1", user_id=7)
    asked.ready()
    for command in (("changes",), ("history", "todo", "1"), ("changes", "--key", "nobody")):
        code, out, _ = asked.bemi(*command, "--csv")
        assert code == 0
        expected = asked.json(*command)
        found = [*csv.DictReader(io.StringIO(out, newline=""))]
        assert len(found) == len(expected)
        assert out.startswith('"id","database","schema","table"')
        for row, change in zip(found, expected, strict=True):
            for column, value in change.items():
                if column in ("before", "after", "context"):
                    assert json.loads(row[column], parse_float=str) == value
                else:
                    assert row[column] == ("" if value is None else str(value))


def test_csv_of_rows_tells_null_from_nothing(asked: Asked) -> None:
    with asked.at.source.transaction():
        asked.at.source.execute(
            "insert into todo values (1, %s, 1.10, '{\"a\": [1, null]}'), (2, '', null, null)",
            [HOSTILE],
        )
    asked.ready()
    (change, _) = asked.json("changes")
    _, out, _ = asked.bemi("at", change["id"], "todo", "--csv")
    quoted = HOSTILE.replace('"', '""')
    assert out == (
        f'"id","data","task","price"\r\n1,"{{""a"":[1,null]}}","{quoted}",1.10\r\n2,,"",\r\n'
    )


def test_csv_of_rows_has_the_columns_of_all(asked: Asked) -> None:
    """A row of before may not have a column that others have."""
    asked.write("insert into todo values (1, 'a')")
    asked.at.source.execute("alter table todo add column late int default 7")
    asked.write("insert into todo values (2, 'b', null, null, 8)")
    (change, *_) = [*asked.ready().changes()]
    _, out, _ = asked.bemi("at", str(change.id), "todo", "--csv")
    first, *rows = csv.reader(io.StringIO(out, newline=""))
    assert "late" in first
    assert {len(row) for row in rows} == {len(first)}


def told(asked: Asked) -> None:
    asked.write("insert into todo values (1), (2)", user_id=7, tenant={"id": "a"})
    asked.write("update todo set task = 'x' where id = 1", user_id="7", **{"tenant.id": "b"})
    asked.write("update todo set task = 'y' where id = 1")
    asked.write("delete from todo", user_id=8)


def test_changes_in_groups(asked: Asked) -> None:
    told(asked)
    history = asked.ready()

    def found(by: str, **filters: object) -> list[tuple[object, list[str]]]:
        groups = history.groups(by, **filters)  # type: ignore[arg-type]
        return [(each.value, [change.operation for change in each.changes]) for each in groups]

    numbers = [change.transaction_id for change in history.changes(key=1)]
    deletes, creates = ["DELETE", "DELETE"], ["CREATE", "CREATE"]
    assert found("transaction") == [
        (numbers[0], deletes),
        (numbers[1], ["UPDATE"]),
        (numbers[2], ["UPDATE"]),
        (numbers[3], creates),
    ]
    assert (
        found("user")
        == found("context.user_id")
        == [
            ("8", deletes),
            (None, ["UPDATE"]),
            ("7", ["UPDATE", *creates]),
        ]
    )
    assert found("context.tenant.id", oldest_first=True) == [
        ("a", creates),
        ("b", ["UPDATE"]),
        (None, ["UPDATE", *deletes]),
    ]
    assert found("context.tenant", limit=1) == [(None, ["DELETE"])]
    assert found("operation", key=1) == [
        ("DELETE", ["DELETE"]),
        ("UPDATE", ["UPDATE", "UPDATE"]),
        ("CREATE", ["CREATE"]),
    ]
    assert [value for value, _ in found("table")] == ["public.todo"]
    assert [value for value, _ in found("source")] == [asked.at.settings.source]
    for group in history.groups("operation"):
        assert next(group.changes) == group.first  # the rest is passed over


def test_groups_are_shown_and_printed_for_programs(asked: Asked) -> None:
    told(asked)
    asked.ready()
    groups = asked.json("changes", "--group-by", "user")
    assert [(each["value"], each["count"]) for each in groups] == [("8", 2), (None, 1), ("7", 3)]
    flat = [change for each in groups for change in each["changes"]]
    assert flat == asked.json("changes")
    assert groups[0]["first"] == groups[0]["last"] == flat[0]["committed_at"]

    _, out, _ = asked.bemi("changes", "--group-by", "user", "--ndjson")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line.pop("group_number"), line.pop("group_value")) for line in lines] == [
        (1, "8"), (1, "8"), (2, None), (3, "7"), (3, "7"), (3, "7"),
    ]  # fmt: skip
    assert [line["id"] for line in lines] == [change["id"] for change in flat]

    _, out, _ = asked.bemi("changes", "--group-by", "user", "--csv")
    rows = [*csv.DictReader(io.StringIO(out, newline=""))]
    assert [row["group_value"] for row in rows] == ["8", "8", "", "7", "7", "7"]

    code, out, _ = asked.bemi("changes", "--group-by", "transaction")
    assert code == 0
    heads = [line for line in out.splitlines() if line.startswith("transaction ")]
    assert [line.rsplit(" · ", 1)[1] for line in heads] == [
        "2 changes", "1 change", "1 change", "2 changes",
    ]  # fmt: skip
    assert "user_id 8" in out
    _, out, _ = asked.bemi("history", "todo", "1", "--group-by", "context.tenant.id")
    assert [line.split(" · ")[0] for line in out.splitlines() if " · " in line] == [
        "no tenant.id", "tenant.id b", "tenant.id a",
    ]  # fmt: skip


def test_a_page_ends_within_a_group(asked: Asked) -> None:
    told(asked)
    asked.ready()
    whole = asked.json("changes")
    found = []
    cursor: list[str] = []
    while True:
        flags = ["--group-by", "transaction", "--limit", "3", *cursor]
        _, out, err = asked.bemi("changes", *flags, "--json")
        found += [change for group in json.loads(out) for change in group["changes"]]
        if "--behind" not in err:
            break
        cursor = ["--behind", err.split("--behind ")[1].split()[0]]
    assert [change["id"] for change in found] == [change["id"] for change in whole]


@pytest.mark.parametrize("name", ["", "usr", "context", "context.", "Table"])
def test_what_nothing_can_be_grouped_by(asked: Asked, name: str) -> None:
    with pytest.raises(UsageError, match="is nothing that changes have: there are transaction"):
        asked.history.groups(name)
    code, _, err = asked.bemi("changes", "--group-by", name)
    assert (code, "nothing that changes have" in err) == (2, True)


def test_hostile_names_of_groups(asked: Asked) -> None:
    keys = ['"; drop table todo; --', "'", "%s", "\u202e", "🙂", "x" * 63]
    asked.write("insert into todo values (1)", **{key: "\x1b[31m" + key for key in keys})
    asked.ready()
    for key in keys:
        (group,) = asked.json("changes", "--group-by", f"context.{key}")
        assert group["value"] == "\x1b[31m" + key
        code, out, _ = asked.bemi("changes", "--group-by", f"context.{key}")
        assert (code, "\x1b" in out, "\u202e" in out) == (0, False, False)
    with pytest.raises(UsageError, match="no text"):
        asked.history.groups("context.a\0")


def test_a_range_in_which_nothing_can_be(asked: Asked) -> None:
    asked.write("insert into todo values (1)")
    history = asked.ready()
    code, _, err = asked.bemi("changes", "--since", "1h", "--until", "2h")
    assert (code, "is after until" in err, "\nfix: " in err) == (2, True, True)
    code, _, err = asked.bemi("changes", "--from-position", "0/2", "--to-position", "0/1")
    assert (code, "0/2 is behind to_position 0/1" in err) == (2, True)
    with pytest.raises(UsageError, match="is after until"):
        history.changes(since="1h", until="2h")
    code, out, _ = asked.bemi("changes", "--since", "2999-01-01")
    assert (code, "2999-01-01 00:00:00 UTC has not come yet" in out) == (0, True)
