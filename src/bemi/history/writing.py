"""Writes rows to the target, in batches, and counts them: what the plan says, and nothing else.

Values are parameters, as texts, which the server reads in the types of its columns.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg import sql

from bemi.errors import BemiError
from bemi.history.looking import batches, given, matches, texts, transposed
from bemi.history.op import Op, Texts
from bemi.history.order import Write
from bemi.history.target import quoted

_BATCH: Final = 1000

Altered: TypeAlias = tuple[Op, str | None]
"""A column that does not hold what was written into it; None: that can't be told, since a trigger
has written the row, which has no key, once more, or taken it away."""


class Writing:
    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._moved: set[int] = set()

    def write(self, rounds: Sequence[Sequence[Write]]) -> None:
        """Raises `BemiError` where a row is not written that should be: a trigger, a rule or a
        policy kept it."""
        for writes in rounds:
            for group in grouped(writes):
                for some in batches(group, _BATCH):
                    self._some(some)

    def correct(self, wrong: Sequence[Altered]) -> None:
        """Write columns of rows that are written once more."""
        columns: dict[int, tuple[Op, list[str]]] = {}
        for op, name in wrong:
            if name is not None:
                columns.setdefault(id(op), (op, []))[1].append(name)
        self.write([[Write(op, "fill", tuple(names)) for op, names in columns.values()]])

    def _some(self, writes: Sequence[Write]) -> None:
        op = writes[0].op
        names = _written(writes[0])
        if writes[0].part != "write" or op.action == "update":
            statement = _update(op, names)
            parameters = self._keys(writes) + [
                list(column)
                for column in zip(*(_values(each, names) for each in writes), strict=True)
            ]
        elif op.action == "delete":
            statement, parameters = _delete(op), self._keys(writes)
        else:
            statement = _insert(op, names)
            parameters = [
                [*range(len(writes))],
                *transposed(_values(each, names) for each in writes),
            ]
        cursor = self._conn.execute(statement, parameters)
        written = cursor.rowcount
        if written != len(writes):
            raise BemiError(
                f"nothing was written: of {len(writes):,} rows of {op.table.label},"
                f" {written:,} took the {op.action}: a trigger, a rule or a policy kept the others",
                fix="see which it is; the plan can leave the table out",
            )
        for each in writes:
            if each.part == "write":
                self._moved.add(id(each.op))
        if not op.keyed and cursor.description is not None:
            for n, (oid, place, *number) in enumerate(cursor.fetchall()):
                writes[number[0] if number else n].op.at = (oid, place)

    def _keys(self, writes: Sequence[Write]) -> list[Any]:
        numbers: list[Any] = [[*range(len(writes))]]
        return numbers + transposed(self._key(each.op) for each in writes)

    def _key(self, op: Op) -> Texts:
        """By which its row is found now."""
        return op.found_by(self._moved) if op.keyed else _place(op)


def grouped(writes: Sequence[Write]) -> Iterator[list[Write]]:
    """Those that one statement can do, tables and keys in their order."""
    groups: dict[tuple[object, ...], list[Write]] = {}
    for each in writes:
        how = (
            each.op.table.label,
            each.op.action,
            each.part,
            each.op.key_columns,
            _written(each),
        )
        groups.setdefault(how, []).append(each)
    yield from (groups[how] for how in sorted(groups))


def _written(each: Write) -> tuple[str, ...]:
    """The columns that it sets."""
    if each.part != "write":
        return each.columns
    return () if each.op.action == "delete" else tuple(each.op.values)


def _values(each: Write, names: Sequence[str]) -> Texts:
    match each.part:
        case "loosen":
            return tuple(None for _ in names)
        case "fill":
            value = each.op.new(names)
            assert value is not None
            return value
        case "write":
            return tuple(None if name in each.columns else each.op.values[name] for name in names)


def _insert(op: Op, names: Sequence[str]) -> sql.Composed:
    table = op.table
    identity = any(table.columns[name].identity for name in names)
    return sql.SQL(
        "insert into {table} as t ({names}) {system}"
        "select {values} from {given} order by w.n{places}"
    ).format(
        table=table.identifier,
        names=sql.SQL(", ").join(map(quoted, names)),
        system=sql.SQL("overriding system value " if identity else ""),
        values=sql.SQL(", ").join(
            table.cast(name, sql.Identifier("w", f"k{n}")) for n, name in enumerate(names)
        ),
        given=given(names),
        # They are written in this order, one by one.
        places=sql.SQL("" if op.keyed else f" returning {_AT}"),
    )


def _update(op: Op, names: Sequence[str]) -> sql.Composed:
    found = op.key_columns if op.keyed else _PLACE
    return sql.SQL("update {rows} set {sets} from {given} where {on}{places}").format(
        rows=op.table.rows,
        sets=sql.SQL(", ").join(
            sql.SQL("{} = {}").format(
                quoted(name),
                op.table.cast(name, sql.Identifier("w", f"k{len(found) + n}")),
            )
            for n, name in enumerate(names)
        ),
        given=given([*found, *names]),
        on=_is(op),
        places=sql.SQL("" if op.keyed else f" returning {_AT}, w.n"),
    )


def _delete(op: Op) -> sql.Composed:
    found = op.key_columns if op.keyed else _PLACE
    return sql.SQL("delete from {rows} using {given} where {on}").format(
        rows=op.table.rows, given=given(found), on=_is(op)
    )


_PLACE: Final = ("tableoid", "ctid")
_AT: Final[LiteralString] = "t.tableoid::bigint, t.ctid::text"


def _is(op: Op) -> sql.Composed:
    if op.keyed:
        return matches(op.table, op.key_columns, op.key_columns)
    # The row is locked: it stays where it is.
    return sql.SQL("t.tableoid = cast(w.k0 as oid) and t.ctid = cast(w.k1 as tid)").format()


def altered(conn: psycopg.Connection[Any], ops: Sequence[Op]) -> list[Altered]:
    """What triggers have set. Raises `BemiError` where they have taken rows away, or put rows back
    that were deleted."""
    found: list[Altered] = []
    by_table: dict[tuple[object, ...], list[Op]] = {}
    for op in ops:
        how = (op.table.oid, op.action == "delete", op.key_columns, tuple(op.values))
        by_table.setdefault(how, []).append(op)
    for group in by_table.values():
        table, names = group[0].table, tuple(group[0].values)
        if group[0].action == "delete":
            _require_gone(conn, group, ops)
            continue
        found_by = group[0].key_columns if group[0].keyed else _PLACE
        query = sql.SQL("select w.n{values} from {given} join {rows} on {on}").format(
            values=texts(names), given=given(found_by), rows=table.rows, on=_is(group[0])
        )
        for some in batches(group, _BATCH):
            keys = [(op.new(op.key_columns) or op.key) if op.keyed else _place(op) for op in some]
            rows = conn.execute(query, [[*range(len(some))], *transposed(keys)]).fetchall()
            if not group[0].keyed:
                there = {row[0] for row in rows}
                found += ((op, None) for n, op in enumerate(some) if n not in there)
            elif len(rows) != len(some):
                raise BemiError(
                    f"nothing was written: {len(some) - len(rows):,} rows of {table.label} are not"
                    " there after they were written: a trigger has taken them away"
                )
            for n, *held in rows:
                op = some[n]
                found += (
                    (op, name)
                    for name, value in zip(names, held, strict=True)
                    if not table.same(name, value, op.values[name])
                )
    return found


def _place(op: Op) -> Texts:
    assert op.at is not None
    return (str(op.at[0]), op.at[1])


def _require_gone(conn: psycopg.Connection[Any], gone: Sequence[Op], ops: Sequence[Op]) -> None:
    """What was deleted may be there only where the plan has put it."""
    table, keyed, key = gone[0].table, gone[0].keyed, gone[0].key_columns
    put = Counter(op.new(key) for op in ops if op.table is table and op.action != "delete")
    if keyed:
        found = matches(table, key, key)
    else:
        # Of equal rows, those of this transaction.
        held = [(n, name) for n, name in enumerate(key) if table.columns[name].kind != "json"]
        found = sql.SQL(
            "t.xmin = pg_catalog.pg_current_xact_id()::xid"
            " and array[{}]::text[] = array[{}]::text[]"
        ).format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(quoted("t", name)) for _, name in held),
            sql.SQL(", ").join(sql.Identifier("w", f"k{n}") for n, _ in held),
        )
    query = sql.SQL("select w.n from {given} join {rows} on {found}").format(
        given=given(key), rows=table.rows, found=found
    )
    for some in batches([*{op.key: op for op in gone}], _BATCH):
        rows = conn.execute(query, [[*range(len(some))], *transposed(some)]).fetchall()
        there = Counter(some[n] for (n,) in rows) - put
        if there:
            count = there.total()
            raise BemiError(
                f"nothing was written: of the rows of {table.label} that were deleted, {count:,}"
                f" {'is' if count == 1 else 'are'} there again: a trigger has put them back",
                fix="see which it is; the plan can leave the table out",
            )
