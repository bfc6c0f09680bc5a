"""What a row's changes prove of its columns, and what they do not."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from bemi.history.blame import Step, blame
from bemi.history.change import Change

Row = dict[str, Any]
Told = dict[str, tuple[object, object, object, bool]]


def change(operation: str, who: str, before: Row, after: Row, *flags: str) -> Change:
    at = datetime(2026, 5, 3, tzinfo=UTC)
    return Change(
        id=UUID(int=1), database="shop", schema="public", table="todo", primary_key="1",
        operation=operation, before=before, after=after, context={"who": who}, committed_at=at,
        queued_at=at, created_at=at, transaction_id=1, position=1, commit_position=1, ordinal=1,
        epoch=1, source="shop", previous_key=None, flags=flags, rules=None,
    )  # fmt: skip


def create(who: str, after: Row, *flags: str) -> Change:
    return change("CREATE", who, {}, after, *flags)


def update(who: str, before: Row, after: Row, *flags: str) -> Change:
    return change("UPDATE", who, before, after, *flags)


def told(*oldest_first: Change | Step) -> Told:
    steps = [each if isinstance(each, Step) else Step(each) for each in reversed(oldest_first)]
    return {
        each.column: (each.value, each.previous, each.change.context["who"], each.exact)
        for each in blame(steps)
    }


def test_a_change_that_shows_both_values_proves_it() -> None:
    assert told(
        create("ann", {"a": 1, "b": 1}),
        update("bob", {"a": 1, "b": 1}, {"a": 2, "b": 1}),
        update("cid", {"a": 2, "b": 1}, {"a": 2, "b": 1}),
    ) == {"a": (2, 1, "bob", True), "b": (1, None, "ann", True)}


def test_a_value_that_came_back_is_of_who_brought_it_back() -> None:
    one, two = {"a": 1}, {"a": 2}
    found = told(create("ann", one), update("bob", one, two), update("cid", two, one))
    assert found == {"a": (1, 2, "cid", True)}


def test_nobody_is_accused_of_what_happened_in_between() -> None:
    """A rewrite by DDL, or a gap: the next change had the value before it, too."""
    found = told(
        create("ann", {"price": 1, "n": 0}),
        update("bob", {"price": 100, "n": 0}, {"price": 100, "n": 1}),
    )
    assert found == {"price": (100, None, "bob", False), "n": (1, 0, "bob", True)}


def test_without_the_old_row_nothing_is_proved() -> None:
    found = told(
        create("ann", {"a": 1, "b": 1}), update("bob", {}, {"a": 2, "b": 1}, "before_unknown")
    )
    assert found == {"a": (2, None, "bob", False), "b": (1, None, "ann", True)}


def test_a_column_whose_old_value_is_not_known() -> None:
    found = told(create("ann", {"a": 1}), update("bob", {}, {"a": 2}, "before_unknown:a"))
    assert found == {"a": (2, None, "bob", False)}


def test_a_row_that_moved_to_another_partition() -> None:
    row = {"id": 1, "region": "eu", "name": "x"}
    delete = change("DELETE", "bob", row, {})
    moved = create("bob", {**row, "region": "us"}, "moved")
    assert told(create("ann", row), Step(moved, moved_from=delete)) == {
        "id": (1, None, "ann", True),
        "region": ("us", "eu", "bob", True),
        "name": ("x", None, "ann", True),
    }
    # Where what it came from is not found, it is no proof of anything.
    assert {each[3] for each in told(moved).values()} == {False}


def test_a_long_value_that_was_not_sent_is_found_further_back() -> None:
    found = told(
        create("ann", {"a": 1, "body": "long"}),
        update("bob", {"a": 1}, {"a": 2}, "before_unknown", "unchanged:body"),
    )
    assert found["body"] == ("long", None, "ann", True)
    found = told(update("bob", {"a": 1}, {"a": 2}, "unchanged:body"))
    assert found["body"] == (None, None, "bob", False)


def test_a_deleted_row_is_as_it_last_was() -> None:
    row = {"a": 1, "b": 2}
    assert told(create("ann", row), change("DELETE", "dan", row, {})) == {
        "a": (1, None, "ann", True),
        "b": (2, None, "ann", True),
    }


def test_a_deleted_row_of_which_only_the_key_was_logged() -> None:
    """Its other values are the last that are known, which need not be the last that it had."""
    found = told(
        create("ann", {"a": 1, "b": 2}), change("DELETE", "dan", {"a": 1}, {}, "before_unknown")
    )
    assert found == {"a": (1, None, "ann", True), "b": (2, None, "ann", False)}


def test_an_earlier_row_with_the_key_is_another_row() -> None:
    found = told(
        create("ann", {"a": 1}),
        change("DELETE", "dan", {"a": 1}, {}),
        update("bob", {"a": 1}, {"a": 1}),
    )
    assert found == {"a": (1, None, "bob", False)}


def test_a_baseline_found_it_so() -> None:
    assert told(
        change("SNAPSHOT", "", {}, {"a": 1, "b": 1}),
        update("bob", {"a": 1, "b": 1}, {"a": 2, "b": 1}),
    ) == {"a": (2, 1, "bob", True), "b": (1, None, "", False)}


@pytest.mark.parametrize("flag", ["inferred", "masked:a"])
def test_what_flags_leave_open_is_not_exact(flag: str) -> None:
    assert told(create("ann", {"a": "***"}, flag)) == {"a": ("***", None, "ann", False)}
    found = told(create("ann", {"a": "***"}, flag), update("bob", {"a": "x"}, {"a": "y"}, flag))
    assert found == {"a": ("y", "x", "bob", False)}


def test_behind_a_value_that_was_too_large_nothing_is_known() -> None:
    row = {"a": "x"}
    found = told(create("ann", row), update("bob", row, {}, "too_large:a"), update("cid", {}, row))
    assert found == {"a": ("x", None, "cid", False)}
    found = told(create("ann", row), update("bob", row, {}, "too_large:a"))
    assert found == {"a": (None, None, "bob", False)}


def test_values_that_python_takes_for_equal() -> None:
    found = told(create("ann", {"a": True}), update("bob", {"a": True}, {"a": 1}))
    assert found == {"a": (1, True, "bob", True)}
    one, other = Decimal("1.0"), Decimal("1.00")
    found = told(create("ann", {"a": one}), update("bob", {"a": one}, {"a": other}))
    assert found["a"][2:] == ("bob", True)


def test_nulls_of_two_kinds() -> None:
    found = told(create("ann", {"a": None}), update("bob", {"a": None}, {"a": None}, "json_null:a"))
    assert found == {"a": (None, None, "bob", False)}


def test_a_column_that_is_younger_than_the_row() -> None:
    found = told(create("ann", {"a": 1}), update("bob", {"a": 1, "b": 0}, {"a": 2, "b": 0}))
    assert found == {"a": (2, 1, "bob", True), "b": (0, None, "bob", False)}


def test_of_no_changes_nothing_is_told() -> None:
    assert told() == {}
