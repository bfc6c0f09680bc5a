"""What classes of changes have alike, whatever library maps them: a row's key as the history has
it, and what a change differs in."""

import datetime as dt
import decimal
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from bemi.errors import BemiError
from bemi.keys import digested


def stored_key(texts: Sequence[str]) -> str:
    """One value's text, or a JSON array of several; a digest of what no index would take."""
    key = texts[0]
    if len(texts) > 1:
        key = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
    return digested(key.encode()).decode()


def key_text(value: object) -> str:
    """A value as PostgreSQL writes it, in UTC, which is how the history has it.

    Raises BemiError for types whose text takes more than the value to know, such as an interval.
    """
    match value:
        case bool():
            return "t" if value else "f"
        case str() | int() | uuid.UUID():
            return str(value)
        case decimal.Decimal():
            return f"{value:f}"
        case bytes() | memoryview():
            return "\\x" + value.hex()
        case dt.datetime():
            return _moment(value)
        case dt.date():
            return value.isoformat()
    raise BemiError(
        f"the text of a key of the type {type(value).__qualname__} is not known",
        fix="look for the change's primary_key by its text",
    )


def _moment(value: dt.datetime) -> str:
    zone = ""
    if value.tzinfo is not None:
        value, zone = value.astimezone(dt.UTC).replace(tzinfo=None), "+00"
    text = value.isoformat(sep=" ")
    return (text.rstrip("0") if value.microsecond else text) + zone


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The columns whose values differ, each with the value before and the one after.

    Of a row that was created or deleted, and of an update whose old row is not known (it has the
    flag `before_unknown`), that is all of its columns, with None on the other side.
    """
    return {
        name: (before.get(name), after.get(name))
        for name in {**before, **after}
        # Not by Python's equality, for which 1 is true.
        if name not in before or name not in after or repr(before[name]) != repr(after[name])
    }
