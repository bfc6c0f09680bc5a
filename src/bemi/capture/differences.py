"""Tells what must have happened to a row between its last stored image and what it is now."""

from collections.abc import Callable

import msgspec

from bemi.capture.values import JSON, same_json
from bemi.change import UNCHANGED, Change, Operation, Row, Table, Value


def difference(
    table: Table, row: Row, last: Row | None, *, was_there: bool, all_known: bool
) -> tuple[Operation, Row | None]:
    """The operation that the row as it is now stands for, and the row before it.

    `last` is its last image, None where that was deleted or `was_there` is false: the history
    never had it. Then it was made since if all rows were known (`all_known`), else nobody can
    tell. Values that can't be told (UNCHANGED) prove no difference.
    """
    if last is not None:
        if alike(table, last, row):
            return Operation.SNAPSHOT, None
        return Operation.UPDATE, last
    if was_there or all_known:
        return Operation.CREATE, None
    return Operation.SNAPSHOT, None


def inferred(operation: Operation, change: Change, before: Row | None) -> Change:
    """A row that was read, as the change that must have led to it; see `difference`."""
    if operation is Operation.SNAPSHOT:
        return change
    unknown = tuple(
        f"before_unknown:{column.name}"
        for column, value in zip(change.table.columns, before or (), strict=False)
        if value is UNCHANGED
    )
    return msgspec.structs.replace(
        change,
        operation=operation,
        before=before,
        before_known=not unknown,
        flags=(*change.flags, "inferred", *unknown),
    )


def alike(table: Table, one: Row, other: Row) -> bool:
    """Whether two rows have the same values, as far as both are known."""
    return all(
        a is UNCHANGED or b is UNCHANGED or a == b or _equal_json(column.type_oid, a, b)
        for column, a, b in zip(table.columns, one, other, strict=True)
    )


class Newer(msgspec.Struct, frozen=True):
    """Leaves out the rows on which the history has a newer word."""

    leaves_out: Callable[[Row], bool]


class Corrections:
    """What to add to the rows that a look saw, and what to leave out, for them to be later ones.

    Of a table without a key: equal rows can't be told apart, but need not be.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._left_out: list[Row] = []
        self.added: list[tuple[Row, tuple[str, ...]]] = []
        """Rows with the flags that their values have."""

    def came(self, row: Row, flags: tuple[str, ...] = ()) -> None:
        self.added.append((row, flags))

    def went(self, row: Row) -> None:
        """A row that was there before, or that came meanwhile."""
        at = self._find([each for each, _ in self.added], row)
        if at is None:
            self._left_out.append(row)
        else:
            del self.added[at]

    def leaves_out(self, row: Row) -> bool:
        """Whether a row that was seen is one that went; each is left out once."""
        at = self._find(self._left_out, row)
        if at is not None:
            del self._left_out[at]
        return at is not None

    def _find(self, rows: list[Row], row: Row) -> int | None:
        return next((at for at, each in enumerate(rows) if alike(self._table, each, row)), None)


def _equal_json(type_oid: int, one: Value, other: Value) -> bool:
    """Of `json`, the history does not keep the spelling."""
    if type_oid != JSON or not isinstance(one, bytes) or not isinstance(other, bytes):
        return False
    return same_json(one, other)
