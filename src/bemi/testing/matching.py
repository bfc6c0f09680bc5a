"""Whether a stored value is the one that a test expects. Pure."""

import datetime as dt
import enum
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from bemi.errors import UsageError
from bemi.history.asking import filters_of


def is_value(stored: Any, expected: Any) -> bool:
    """By Python's equality, so that `pytest.approx` and `mock.ANY` work; else as the filters of
    the history compare, which know PostgreSQL's text of dates, UUIDs and numbers. True and 1 are
    two things."""
    if isinstance(expected, enum.Enum) and not isinstance(expected, str | int):
        expected = expected.value
    if isinstance(expected, bool) or expected is None:
        return stored is expected
    if isinstance(expected, int | float | Decimal) and isinstance(stored, bool):
        return False
    if isinstance(expected, Mapping) and isinstance(stored, dict):
        return stored.keys() == expected.keys() and all(
            is_value(stored[key], each) for key, each in expected.items()
        )
    if isinstance(expected, list | tuple) and isinstance(stored, list):
        return len(stored) == len(expected) and all(map(is_value, stored, expected))
    if _equal(stored, expected):
        return True
    if isinstance(expected, dt.time):
        return bool(stored == expected.isoformat())
    try:
        ((_, text),) = filters_of(after={"": expected}).after
    except UsageError:
        return False
    return _text(stored) == text


def _equal(stored: Any, expected: Any) -> bool:
    try:
        return bool(expected == stored)
    except TypeError:  # approx(0.1) knows floats only
        return isinstance(stored, Decimal) and bool(expected == float(stored))


def is_member(context: Mapping[str, Any], name: str, expected: object) -> bool:
    """A dotted name reaches into the context; a value compares as text, as everywhere."""
    found = member(context, name)
    if found is None:
        return expected is None and name in context
    return all(
        _text(member(context, inner)) == text
        for inner, text in filters_of(context={name: expected}).context
    )


def member(context: Mapping[str, Any], name: str) -> Any:
    found: Any = context.get(name)
    if found is None and "." in name:
        found = context
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    return found


def _text(stored: Any) -> str:
    if isinstance(stored, str):
        return stored
    if isinstance(stored, bool) or stored is None:
        return json.dumps(stored)
    if isinstance(stored, int | Decimal):
        return str(stored)
    return json.dumps(stored, default=str)
