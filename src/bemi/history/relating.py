"""What rows that are to be altered have to do with each other, and with rows that are not.

Foreign keys and unique indexes, as the catalog has them: which row has to be written before which,
and which can't be written at all.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.history.looking import batches, given, matches, transposed
from bemi.history.op import Need, Op, Texts
from bemi.history.target import ForeignKey, Table, Target, Unique, quoted

_BATCH: Final = 2000
_MOST_CHILDREN: Final = 1_000_000
_TAKES: Final = "cnd"
"""What foreign keys do that write to the rows that refer: cascade, set null, set default."""


class Relating:
    """The needs of ops, and conflicts with what is not among them."""

    def __init__(self, conn: psycopg.Connection[Any], target: Target, ops: Sequence[Op]) -> None:
        self._conn = conn
        self._target = target
        self._of: dict[int, list[Op]] = {}
        self._at: dict[tuple[int, str], Op] = {}
        for op in ops:
            if op.active:
                self._of.setdefault(op.table.oid, []).append(op)
                if op.at is not None:
                    self._at[op.at] = op
        self.needs: list[Need] = []

    def relate(self) -> list[Need]:
        for oid, ops in self._of.items():
            table = self._target.table(oid)
            for unique in table.uniques:
                self._unique(table, unique, ops)
        for key in self._target.foreign_keys:
            self._children(key)
            self._parents(key)
        return self.needs

    def _need(
        self, op: Op, first: Op, constraint: str, of: Op, columns: Texts, waits: bool
    ) -> None:
        if op is not first:
            names = tuple(column for column in columns if column is not None)
            self.needs.append(Need(op, first, constraint, of, names, waits))

    def _unique(self, table: Table, unique: Unique, ops: Iterable[Op]) -> None:
        columns = unique.columns
        takers: dict[Texts, Op] = {}
        for op in ops:
            value = op.new(columns)
            if value is None or value == op.old(columns):
                continue
            if None in value and not unique.nulls_equal:
                continue
            if value in takers:
                op.conflict(
                    "unique", f"another row of the plan has the same {_told(columns, value)}"
                )
            else:
                takers[value] = op
        if not takers:
            return
        held = self._rows(table, columns, table, columns, [*takers])
        for value, at, key in held:
            op, holder = takers[value], self._at.get(at)
            if holder is op:
                continue
            if holder is not None and holder.active and holder.new(columns) != value:
                self._need(op, holder, unique.name, holder, columns, unique.deferrable)
            else:
                op.conflict("unique", f"{_told(columns, value)} is that of {_row(table, key)} now")

    def _children(self, key: ForeignKey) -> None:
        """Rows that refer to what goes."""
        going: dict[Texts, Op] = {}
        for op in self._of.get(key.parent, ()):
            value = op.old(key.references)
            if value is not None and None not in value and value != op.new(key.references):
                going[value] = op
        if not going:
            return
        child, parent = self._target.table(key.child), self._target.table(key.parent)
        self._hidden(key, child, going.values())
        found = self._rows(child, key.columns, parent, key.references, [*going])
        others: dict[int, tuple[Op, list[str]]] = {}
        for value, at, its in found:
            op, other = going[value], self._at.get(at)
            if other is not None and _carried(key, op, other):
                other.carried.update(dict.fromkeys(key.columns, op))
                self._need(other, op, key.name, other, key.columns, waits=False)
            elif other is not None and other.active and not _refers(key, child, other, value):
                waits = key.deferrable and not key.at_once
                self._need(op, other, key.name, other, key.columns, waits)
            else:
                others.setdefault(id(op), (op, []))[1].append(its)
        for op, rows in others.values():
            some = ", ".join(rows[:3]) + (", …" if len(rows) > 3 else "")
            what = "row refers" if len(rows) == 1 else "rows refer"
            does = key.on_delete if op.action == "delete" else key.on_update
            goes = "go" if op.action == "delete" else "change"
            taken = {"c": f" and would {goes} with it", "n": " and would lose that"}.get(does, "")
            op.conflict("children", f"{len(rows):,} {what} to it{taken}: {child.label} {some}")

    def _hidden(self, key: ForeignKey, child: Table, ops: Iterable[Op]) -> None:
        """Rows that the role may not see would go all the same: foreign keys see them."""
        if not child.row_security:
            return
        for op in ops:
            if (key.on_delete if op.action == "delete" else key.on_update) in _TAKES:
                op.conflict(
                    "children",
                    f"rows of {child.label} that row security hides from this role may refer to it"
                    f" ({key.name})",
                )

    def _parents(self, key: ForeignKey) -> None:
        """Rows that what comes refers to."""
        coming: dict[Texts, list[Op]] = {}
        for op in self._of.get(key.child, ()):
            value = op.new(key.columns)
            if value is not None and None not in value and value != op.old(key.columns):
                coming.setdefault(value, []).append(op)
        if not coming:
            return
        parent, child = self._target.table(key.parent), self._target.table(key.child)
        makers: dict[Texts, Op] = {}
        for op in self._of.get(key.parent, ()):
            value = op.new(key.references)
            if value is not None and value != op.old(key.references):
                makers[value] = op
        missing = [value for value in coming if value not in makers]
        there = {
            value: at
            for value, at, _ in self._rows(parent, key.references, child, key.columns, missing)
        }
        for value, ops in coming.items():
            maker = makers.get(value)
            held = self._at.get(there[value]) if value in there else None
            for op in ops:
                if maker is not None:
                    self._need(op, maker, key.name, op, key.columns, key.deferrable)
                elif value not in there:
                    op.conflict(
                        "parent",
                        f"it refers to {parent.label} {', '.join(map(str, value))},"
                        " which is not there",
                    )
                elif held is not None and held.active and held.new(key.references) != value:
                    op.conflict("parent", f"it refers to {parent.label} {held.label}, which goes")

    def _rows(
        self,
        table: Table,
        columns: Sequence[str],
        types_of: Table,
        typed_as: Sequence[str],
        values: Sequence[Texts],
    ) -> list[tuple[Texts, tuple[int, str], str]]:
        """The rows of a table that have one of these values: value, place, key's text."""
        its_key = table.key or columns
        query = sql.SQL(
            "select w.n, t.tableoid::bigint, t.ctid::text, jsonb_build_array({key})::text"
            " from {given} join {rows} on {on} limit %s"
        ).format(
            key=sql.SQL(", ").join(
                sql.SQL("{}::text").format(quoted("t", column)) for column in its_key
            ),
            given=given(columns),
            rows=table.rows,
            on=matches(table, columns, typed_as, types_of=types_of),
        )
        found: list[tuple[Texts, tuple[int, str], str]] = []
        for some in batches(values, _BATCH):
            rows = self._conn.execute(
                query, [[*range(len(some))], *transposed(some), _MOST_CHILDREN]
            )
            for n, oid, place, key in rows:
                parts = msgspec.json.decode(key, type=list[str | None])
                text = str(parts[0]) if len(parts) == 1 else key
                found.append((some[n], (oid, place), text))
        return found


def settle(ops: Sequence[Op], needs: Sequence[Need]) -> None:
    """What needs a row that is not written can't be written either."""
    waiting: dict[int, list[Need]] = {}
    for need in needs:
        waiting.setdefault(id(need.first), []).append(need)
    todo = [op for op in ops if op.conflicts]
    while todo:
        op = todo.pop()
        for need in waiting.get(id(op), ()):
            if need.op.active:
                need.op.conflict(
                    "depends", f"it depends on {op.table.label} {op.label} ({need.constraint})"
                )
                todo.append(need.op)


def _carried(key: ForeignKey, op: Op, child: Op) -> bool:
    """Whether the update of the row that it refers to does to the child what is planned for it."""
    return (
        key.on_update == "c"
        and op.action == child.action == "update"
        and child.active
        and child.keyed
        and child.new(key.columns) == op.new(key.references)
    )


def _refers(key: ForeignKey, child: Table, op: Op, value: Texts) -> bool:
    """Whether the child will still have the value, however it spells it: 1 for 1.0."""
    new = op.new(key.columns)
    if new is None:
        return False
    return new == op.old(key.columns) or all(map(child.same, key.columns, new, value))


def _told(columns: Sequence[str], value: Texts) -> str:
    return ", ".join(f"{name} {part}" for name, part in zip(columns, value, strict=True))


def _row(table: Table, key: str) -> str:
    return f"{table.label} {key}"
