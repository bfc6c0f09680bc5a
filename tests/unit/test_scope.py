"""What of the history somebody may see."""

from typing import Any

import pytest

from bemi.errors import UsageError
from bemi.store.scope import Scope, shown, shown_flags


def scope(*entries: dict[str, Any]) -> Scope:
    return Scope.read(list(entries))


def test_what_is_in_no_entry_is_not_seen() -> None:
    some = scope({"table": "public.todo", "columns": ["id"]}, {"table": "crm.*"})
    assert some.sees("todo")
    assert some.sees("public.todo")
    assert some.sees("crm.user")
    assert not some.sees("public.user")
    assert not some.sees("crm2.user")
    assert not scope().sees("todo")


def test_of_several_entries_a_table_has_the_columns_of_all() -> None:
    some = scope(
        {"table": "public.*", "columns": ["id"]},
        {"table": "public.todo", "columns": ["task"]},
        {"table": "crm.*"},
    )
    assert some.columns("public", "todo") == frozenset({"id", "task"})
    assert some.columns("public", "user") == frozenset({"id"})
    assert some.columns("crm", "user") is None


def test_a_filter_may_ask_for_what_is_seen_wherever_it_looks() -> None:
    some = scope({"table": "todo", "columns": ["id", "task"]}, {"table": "user", "columns": ["id"]})
    assert some.shows_column("task", "todo")
    assert not some.shows_column("task", "user")
    assert some.shows_column("id", None)
    assert not some.shows_column("task", None)
    assert not some.shows_column("id", "nothing")


def test_flags_of_hidden_columns_are_hidden() -> None:
    flags = [
        "moved",
        "unchanged:task",
        "too_large:pin:sha256",
        "too_large:task:sha256",
        "masked:pi",
    ]
    assert shown_flags(frozenset({"task"}), flags) == ["moved", "unchanged:task", flags[3]]
    assert shown_flags(None, flags) == flags
    assert shown(frozenset({"task"}), {"task": 1, "pin": 2}) == {"task": 1}


@pytest.mark.parametrize(
    "value",
    [
        {},
        [1],
        [{"table": ""}],
        [{"table": "."}],
        [{"table": "a", "column": []}],
        [{"table": "a\0"}],
    ],
)
def test_what_is_no_scope_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="scopes: "):
        Scope.read(value)
