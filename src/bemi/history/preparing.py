"""Turns effects, which go by what the history calls things, into what is to be done to the target's
tables, or says what they have no place for.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from bemi.history.effect import Effect
from bemi.history.families import Family
from bemi.history.lives import Lost
from bemi.history.op import Op
from bemi.history.plan import Conflict
from bemi.history.target import Table, Target

_LOST: Final = "can't be restored"
MAY_COME_TWICE: Final = (
    "rows without a key come back whether they are back already or not:"
    " what the history does not have yet can't be told from what was there"
)
"""Said of a table; where all that is committed is in the history, there is no such."""


class Prepared:
    """`ops`, and what of it all can't be done at all. `here`: to the source, not to another
    database, which may have columns of its own."""

    def __init__(self, *, here: bool) -> None:
        self._here = here
        self.ops: list[Op] = []
        self.conflicts: list[Conflict] = []
        self.notes: dict[str, None] = {}

    def take(
        self,
        family: Family,
        table: Table | None,
        names: Mapping[str, str],
        effects: Sequence[Effect],
        detached: Mapping[int, Table],
    ) -> None:
        """The effects on the rows of a table; `names`: of its columns, by the history's.
        `detached`: what was part of it once."""
        if table is None:
            self.conflicts += (
                Conflict(
                    family.name,
                    None,
                    "table",
                    "the table is not there any more",
                    effect.changes[-1],
                )
                for effect in effects[:1]
            )
            return
        missing = [column for column in family.key if column not in names]
        if missing and effects:
            self.conflicts.append(
                Conflict(
                    table.label,
                    None,
                    "table",
                    f"its rows were known by {', '.join(missing)}, which it does not have",
                )
            )
            return
        for effect in effects:
            self.ops.append(self._op(family, table, names, effect))
            if apart := detached.get(effect.relation):
                self.ops[-1].conflict("gone", f"it lay in {apart.label}, which was detached since")
        if not family.keyed and any(effect.action == "insert" for effect in effects):
            self.notes[f"{table.label}: {MAY_COME_TWICE}"] = None
        if effects and table.triggers:
            self.notes[f"{table.label}: triggers fire: {', '.join(table.triggers)}"] = None
        if effects and table.row_security:
            self.notes[
                f"{table.label}: row security holds for this role: rows that it may not see look as"
                " if they were not there"
            ] = None

    def _op(self, family: Family, table: Table, names: Mapping[str, str], effect: Effect) -> Op:
        op = Op(
            table=table,
            action=effect.action,
            key_columns=tuple(names[column] for column in family.key),
            key=tuple(None if isinstance(part, Lost) else part for part in effect.key),
            keyed=family.keyed,
            effect=effect,
            expected={},
            values={},
            between={},
        )
        for column, part in zip(family.key, effect.key, strict=True):
            if isinstance(part, Lost):
                # Of a row without a key it might be any that equals the rest, or another one.
                what = "its key" if family.keyed else f"{column}, by which it would be found,"
                op.conflict("lost", f"{what} is not known: {part.why}")
        for column, field in effect.fields.items():
            name = names.get(column)
            if name is None or table.columns[name].generated:
                if name is None:
                    self._dropped(family, op, column)
                continue
            if effect.action != "delete":
                if isinstance(field.target, Lost):
                    op.conflict("lost", f"{name} {_LOST}: {field.target.why}", field.between)
                    continue
                op.values[name] = field.target
            if effect.action != "insert":
                if field.between is not None:
                    op.between[name] = field.between
                if isinstance(field.expected, Lost):
                    self._unseen(op, name, field.expected)
                    continue
                op.expected[name] = field.expected
        self._untold(family, op, names)
        return op

    def _unseen(self, op: Op, name: str, value: Lost) -> None:
        """A value that should still be there, but can't be compared."""
        if op.action == "update" or value.instead is None:
            op.conflict("lost", f"whether {name} was changed since can't be told: {value.why}")
        else:
            self._not_compared(op, name, value.why)

    def _dropped(self, family: Family, op: Op, column: str) -> None:
        if family.number(column):
            self.notes[
                f"{op.table.label}: it has no column {column} any more, which is left out"
            ] = None
        else:
            op.conflict(
                "lost",
                f"there is no {column} any more, and whether it was dropped or has another name is"
                " not known",
            )

    def _untold(self, family: Family, op: Op, names: Mapping[str, str]) -> None:
        """Columns of which the history has nothing, in a row that comes, or in one that goes."""
        table, effect = op.table, op.effect
        comes = effect.action == "insert" or effect.comes is not None
        if not comes and effect.action != "delete":
            return
        known = effect.fields if effect.comes is None else effect.comes
        told = {names[column] for column in known if column in names}
        # A column that was added later with a default had it in rows that were there then.
        lacked = {
            names[column.name]
            for column in family.main.last.columns
            if column.name in names and (not column.filled or column.name in family.excluded)
        }
        for name, column in table.columns.items():
            if column.generated or name in told:
                continue
            if comes and (column.required or name in lacked):
                op.conflict("lost", f"{name} {_LOST}: the history has no value of it")
            elif effect.action == "insert":
                self.notes[
                    f"{table.label}: {name} of rows that come back gets its default: it was added"
                    " since"
                ] = None
            elif name in lacked or not self._here:
                self._not_compared(op, name, "the history does not have it")
            else:
                op.untold += (name,)

    def _not_compared(self, op: Op, name: str, why: str) -> None:
        self.notes[
            f"{op.table.label}: {name} of rows that are to be deleted is not compared: {why}"
        ] = None


def names_by_number(family: Family, target: Target, table: Table) -> dict[str, str]:
    """What the columns are called now, by what the history calls them: by their numbers."""
    now = target.names([family.main.oid]).get(family.main.oid, {})
    found = {}
    for column in family.main.last.columns:
        name = now.get(column.number) if column.number and now else column.name
        if name is not None and name in table.columns:
            found[column.name] = name
    return found


def names_by_name(family: Family, table: Table) -> dict[str, str]:
    """In another database, where columns have other numbers."""
    return {
        column.name: column.name
        for column in family.main.last.columns
        if column.name in table.columns
    }
