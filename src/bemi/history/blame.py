"""Who gave each column of a row the value that it has: the row's changes, from the last one back.

A change is the one only where it shows both values itself, or the row was created with it. What
lies between two changes, such as a rewrite by DDL or a gap, is nobody's. Pure.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from bemi.history.change import Change

_BORN: Final = ("CREATE", "SNAPSHOT")
_WHOLE_UNKNOWN: Final = "before_unknown"


class Step(msgspec.Struct, frozen=True):
    """A change of the row; `moved_from` is the DELETE by which it left another partition."""

    change: Change
    moved_from: Change | None = None


class Blame(msgspec.Struct, frozen=True):
    """The change that gave a column its value.

    `previous` is the value before, where that is known. `exact`: it is known that this change set
    it; else it had the value by then, as far as is known, and something earlier may have set it.
    Where the value itself is not known, it is None, and `change` the last that may have set it.
    """

    column: str
    value: Any
    previous: Any
    exact: bool
    change: Change


class _Column:
    """What is known of a column so far, going back."""

    def __init__(self, name: str, change: Change, *, doubtful: bool = False) -> None:
        self.name = name
        self.change = change
        self.doubtful = doubtful
        """Whether a later change, of which too little is known, may have set it."""
        self.value: Any = None
        self.form: str | None = None

    def known(self, value: Any, form: str) -> None:
        self.value, self.form = value, form

    def blame(self, previous: Any = None, *, exact: bool = False) -> Blame:
        exact = exact and not self.doubtful
        return Blame(self.name, self.value, previous, exact, self.change)


def blame(steps: Iterable[Step]) -> list[Blame]:
    """Of the row whose changes these are, the newest first and in one piece: its columns.

    Of a row that was deleted, as it last was. Reads no further than it must, and not beyond where
    the row was created; nothing where there are no changes.
    """
    names: dict[str, None] = {}
    columns: dict[str, _Column] = {}
    found: dict[str, Blame] = {}
    partial = False
    for at, step in enumerate(steps):
        change = step.change
        if change.operation == "DELETE":
            if at:
                break  # what is older is of an earlier row with this key
            columns = {name: _Column(name, change) for name in change.before}
            for name, column in columns.items():
                column.known(change.before[name], _form(change.before[name], name, change))
            partial = _WHOLE_UNKNOWN in change.flags
        elif not at or partial:
            for name in _columns_of(change):
                if name not in columns:
                    columns[name] = _Column(name, change, doubtful=partial)
            partial = False
        names |= dict.fromkeys(columns)
        if change.operation != "DELETE":
            for name, column in list(columns.items()):
                settled = _look(step, column)
                if settled is not None:
                    found[name] = settled
                    del columns[name]
        if (change.operation in _BORN and step.moved_from is None) or not (columns or partial):
            break
    found |= {name: column.blame() for name, column in columns.items()}
    return [found[name] for name in names]


def _columns_of(change: Change) -> list[str]:
    """Also those that it does not have the values of."""
    missing = (flag.partition(":") for flag in change.flags)
    return [
        *change.after,
        *(name for kind, _, name in missing if kind in ("unchanged", "too_large")),
    ]


def _look(step: Step, column: _Column) -> Blame | None:
    """What the step settles of a column; None where it has to be looked for further back."""
    change, name = step.change, column.name
    before = change.before if step.moved_from is None else step.moved_from.before
    if f"unchanged:{name}" in change.flags:
        if column.form is None and name in before:
            column.known(before[name], _form(before[name], name, change))
        return None
    if name not in change.after:
        return column.blame()  # it was too large, or there was no such column
    form = _form(change.after[name], name, change)
    if column.form is None:
        column.known(change.after[name], form)
    elif form != column.form:
        return column.blame()  # something that no change shows lies in between
    column.change = change
    exact = not {"inferred", f"masked:{name}"} & {*change.flags}
    if step.moved_from is None and change.operation in _BORN:
        return column.blame(
            exact=exact and change.operation == "CREATE" and "moved" not in change.flags
        )
    if name in before and _form(before[name], name, change) != form:
        return column.blame(before[name], exact=exact)
    if change.after[name] is None and f"json_null:{name}" in change.flags:
        return column.blame()  # from one null to the other, or not
    return None


def _form(value: Any, name: str, change: Change) -> str:
    """Equal for equal values only: 1 is not true, nor 1.0 what 1.00 is."""
    return repr(
        (value, *(flag for flag in (f"text:{name}", f"json_null:{name}") if flag in change.flags))
    )
