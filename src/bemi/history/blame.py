"""Who gave each column of a row the value that it has: the row's changes, from the last one back.

Goes by the values after each change, since the row before it may not be known. Pure.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from bemi.history.change import Change

_UNSENT: Final = "unchanged:"
_BORN: Final = ("CREATE", "SNAPSHOT")


class Blame(msgspec.Struct, frozen=True):
    """The change that gave a column its value.

    `previous` is the value before, where that is known. `exact`: it is known that this change set
    it; else it had the value by then, and an earlier one may have set it.
    """

    column: str
    value: Any
    previous: Any
    exact: bool
    change: Change


def blame(changes: Iterable[Change]) -> list[Blame]:
    """Of the row whose changes these are, the newest first and in one piece: its columns in order.

    Of a row that was deleted, as it last was. Reads no further than it must, and not beyond where
    the row was created; none where nothing is known of the row.
    """
    columns: list[str] = []
    open_: dict[str, Blame | None] = {}
    values: dict[str, Any] = {}
    found: dict[str, Blame] = {}
    for change in changes:
        if change.operation == "DELETE":
            if columns:
                break  # what is older is of an earlier row with this key
            values = change.before
            columns, open_ = [*values], dict.fromkeys(values)
            continue
        if not columns:
            values = change.after
            columns, open_ = [*values], dict.fromkeys(values)
        for column in list(open_):
            settled = _settle(change, column, values[column], open_[column])
            if settled is not None:
                found[column] = settled
                del open_[column]
            elif _has(change, column):
                open_[column] = Blame(column, values[column], None, False, change)
        if not open_ or change.operation in _BORN:
            break
    found |= {column: candidate for column, candidate in open_.items() if candidate is not None}
    return [found[column] for column in columns if column in found]


def _settle(change: Change, column: str, value: Any, candidate: Blame | None) -> Blame | None:
    """What the change tells for sure of the column, if it tells it."""
    if _has(change, column) and change.after[column] != value:
        # The one behind it has set it, whatever that says of the row before.
        if candidate is None:
            return None
        return Blame(column, value, change.after[column], True, candidate.change)
    if change.operation in _BORN and column in change.after:
        return Blame(column, value, None, change.operation == "CREATE", change)
    if _has(change, column) and column in change.before and change.before[column] != value:
        return Blame(column, value, change.before[column], True, change)
    return None


def _has(change: Change, column: str) -> bool:
    """Whether the change says what the column was after it."""
    return column in change.after and f"{_UNSENT}{column}" not in change.flags
