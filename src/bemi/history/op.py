"""What is to be done to one row of the target, as it was looked at, and what it needs. Pure."""

from collections.abc import Container, Mapping, Sequence
from typing import TypeAlias
from uuid import UUID

import msgspec

from bemi.history.effect import Action, Effect
from bemi.history.plan import Conflict, PlannedField, PlannedRow
from bemi.history.target import Table

Texts: TypeAlias = tuple[str | None, ...]


class Op(msgspec.Struct, eq=False):
    """One row.

    `values`: what is to be written. `untold`: columns of a row that goes of which the history knows
    nothing, since they were added later; `filled`: what adding them put there. `present`: the row
    as it is; `at`: where it is, by table and place within it.
    """

    table: Table
    action: Action
    key_columns: tuple[str, ...]
    key: Texts
    keyed: bool
    effect: Effect
    expected: dict[str, str | None]
    values: dict[str, str | None]
    between: dict[str, UUID | None]
    untold: tuple[str, ...] = ()
    filled: Mapping[str, str | None] = {}
    present: dict[str, str | None] | None = None
    at: tuple[int, str] | None = None
    done: bool = False
    fields: tuple[PlannedField, ...] = ()
    conflicts: list[Conflict] = []
    carried: dict[str, "Op"] = {}
    """Columns that `on update cascade` gives their new values, and the row whose writing does."""

    @property
    def active(self) -> bool:
        return not (self.done or self.conflicts)

    @property
    def label(self) -> str:
        """The key's text, as the history has it."""
        if len(self.key) == 1:
            return str(self.key[0])
        return msgspec.json.encode(self.key).decode()

    def old(self, columns: Sequence[str]) -> Texts | None:
        """The values that the row has; None where there is none."""
        if self.present is None:
            return None
        return tuple(self.present.get(column) for column in columns)

    def new(self, columns: Sequence[str]) -> Texts | None:
        """The values that it will have; None where it will not be there."""
        if self.action == "delete":
            return None
        held = self.present or {}
        return tuple(self.values.get(column, held.get(column)) for column in columns)

    def found_by(self, written: Container[int]) -> Texts:
        """Its key when the ops have been written whose ids these are."""
        return tuple(
            self.values.get(name, part) if self.is_new(name, written) else part
            for name, part in zip(self.key_columns, self.key, strict=True)
        )

    def is_new(self, column: str, written: Container[int]) -> bool:
        by = self.carried.get(column)
        return id(self) in written or (by is not None and id(by) in written)

    def conflict(self, kind: str, message: str, change: UUID | None = None) -> None:
        self.conflicts.append(Conflict(self.table.label, self.label, kind, message, change))

    def planned(self) -> PlannedRow:
        return PlannedRow(
            self.table.label,
            self.label,
            self.action,
            self.done,
            self.fields,
            tuple(self.conflicts),
            self.effect.changes,
        )


class Need(msgspec.Struct, frozen=True, eq=False):
    """`op` can be done only if `first` is.

    `columns`: of which of the two (`of`) null would loosen it. `waits`: the constraint is checked
    at the end, so that they may be done in any order.
    """

    op: Op
    first: Op
    constraint: str
    of: Op
    columns: tuple[str, ...]
    waits: bool
