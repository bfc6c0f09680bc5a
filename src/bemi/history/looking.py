"""Looks at the rows that are to be altered, in batches, and locks them where they are to be.

Values are compared as the texts that their types give them, so that nothing is taken for equal
that anybody could tell apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql

from bemi.history.op import Op
from bemi.history.plan import PlannedField
from bemi.history.target import ForeignKey, Table, quoted

_BATCH: Final = 2000

_PLAIN: Final = frozenset({"text", "character varying", "numeric", "bigint"})
"""Types that write every text that the history may have for them as it stands."""

_FILLED: Final = """
select attrelid::bigint, attname::text, (attmissingval::text::text[])[1]
from pg_catalog.pg_attribute where attrelid = any(%s) and atthasmissing and not attisdropped
"""

_Each = TypeVar("_Each")


class Looking:
    """One look; within one transaction, under the settings of the stream."""

    def __init__(self, conn: psycopg.Connection[Any], *, lock: bool) -> None:
        self._conn = conn
        self._lock = lock
        self._taken: set[tuple[int, str] | None] = set()

    def look(self, ops: Sequence[Op], foreign_keys: Sequence[ForeignKey]) -> None:
        """Fills in the rows as they are, and what is done already or in conflict with them.

        Rows are locked in the order of tables and keys, which is the same for everyone.
        """
        by_table: dict[int, list[Op]] = {}
        for op in ops:
            by_table.setdefault(op.table.oid, []).append(op)
        groups = sorted(by_table.values(), key=lambda group: group[0].table.label)
        for group in groups:
            table = group[0].table
            self._spell(table, group)
            columns = _columns(table, group, foreign_keys)
            wanted = sorted(
                (op for op in group if not op.conflicts and (op.keyed or op.action != "insert")),
                key=lambda op: tuple(part or "" for part in op.key),
            )
            for some in batches(wanted, _BATCH):
                if some[0].keyed:
                    self._fetch(table, some, columns)
                else:
                    self._fetch_equal(table, some, columns)
            self._fill([op for op in group if op.untold and op.at is not None])
        going = {op.at for op in ops if op.at is not None and _goes(op)}
        for op in ops:
            if op.action == "insert" and op.at in going:
                op.at = op.present = None  # its place becomes free
            compare(op)

    def _fill(self, ops: Sequence[Op]) -> None:
        """What rows hold that were there when columns were added, unless it was written since."""
        filled: dict[int, dict[str, str | None]] = {}
        for oid, name, value in self._conn.execute(_FILLED, [[op.at[0] for op in ops if op.at]]):
            filled.setdefault(oid, {})[name] = value
        for op in ops:
            if op.at is not None:
                op.filled = filled.get(op.at[0], {})

    def _spell(self, table: Table, ops: Sequence[Op]) -> None:
        """Bring the texts of the history into the form that the types give them now."""
        columns = [name for name, column in table.columns.items() if column.type not in _PLAIN]
        wanted: dict[str, set[str]] = {name: set() for name in columns}
        for op in ops:
            for held in (op.values, op.expected, dict(zip(op.key_columns, op.key, strict=True))):
                for name in columns:
                    value = held.get(name)
                    if value is not None:
                        wanted[name].add(value)
        spelled = {
            name: self._spelled(table, name, sorted(values)) for name, values in wanted.items()
        }
        for op in ops:
            for held in (op.values, op.expected):
                for name in columns:
                    value = held.get(name)
                    if value is None:
                        continue
                    if (text := spelled[name].get(value)) is not None:
                        held[name] = text
                    elif held is op.values:
                        op.conflict("type", f"{name} does not take its old value any more")
            if any(name in spelled for name in op.key_columns):
                self._spell_key(op, spelled)

    def _spell_key(self, op: Op, spelled: Mapping[str, Mapping[str, str]]) -> None:
        key: list[str | None] = []
        for name, part in zip(op.key_columns, op.key, strict=True):
            if part is not None and name in spelled:
                if part not in spelled[name]:
                    op.conflict("type", f"{name} does not take the key any more")
                part = spelled[name].get(part, part)
            key.append(part)
        op.key = tuple(key)

    def _spelled(self, table: Table, column: str, values: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        todo = [[*each] for each in batches(values, _BATCH)]
        while todo:
            some = todo.pop()
            query = sql.SQL(
                "select {}::text from unnest(%s::text[]) with ordinality w (v, n) order by n"
            ).format(table.cast(column, sql.Identifier("w", "v")))
            try:
                with self._conn.transaction():
                    rows = self._conn.execute(query, [some]).fetchall()
            except (psycopg.DataError, psycopg.ProgrammingError):
                # Some of them the type does not take; one by one, it is known which.
                if len(some) > 1:
                    todo += [some[: len(some) // 2], some[len(some) // 2 :]]
                continue
            found.update(zip(some, (row[0] for row in rows), strict=True))
        return found

    def _fetch(self, table: Table, ops: Sequence[Op], columns: Sequence[str]) -> None:
        key = ops[0].key_columns
        query = sql.SQL(
            "select w.n, t.tableoid::bigint, t.ctid::text{values} from {given} join {rows} on {on}"
            " order by w.n{lock}"
        ).format(
            values=texts(columns),
            given=given(key),
            rows=table.rows,
            on=matches(table, key, key),
            lock=sql.SQL(" for update of t" if self._lock else ""),
        )
        rows = self._conn.execute(query, [[*range(len(ops))], *transposed(op.key for op in ops)])
        for n, oid, place, *present in rows:
            op = ops[n]
            if op.at is not None:
                op.conflict("changed", "several rows have this key now")
            op.at = (oid, place)
            op.present = dict(zip(columns, present, strict=True))

    def _fetch_equal(self, table: Table, ops: Sequence[Op], columns: Sequence[str]) -> None:
        """Rows without a key are found by all of their values; of equal ones any is as good."""
        key = ops[0].key_columns
        # How JSON is spelled, the history does not keep.
        told = [(n, name) for n, name in enumerate(key) if table.columns[name].kind != "json"]
        json = [(n, name) for n, name in enumerate(key) if table.columns[name].kind == "json"]
        query = sql.SQL(
            "select w.n, t.tableoid::bigint, t.ctid::text{values} from {given} join {rows} on"
            " array[{theirs}]::text[] = array[{ours}]::text[]"
            " order by w.n, t.tableoid, t.ctid{lock}"
        ).format(
            values=texts(columns),
            given=given(key),
            rows=table.rows,
            theirs=sql.SQL(", ").join(
                sql.SQL("{}::text").format(quoted("t", name)) for _, name in told
            ),
            ours=sql.SQL(", ").join(sql.Identifier("w", f"k{n}") for n, _ in told),
            lock=sql.SQL(" for update of t" if self._lock else ""),
        )
        rows = self._conn.execute(query, [[*range(len(ops))], *transposed(op.key for op in ops)])
        for n, oid, place, *held in rows:
            op, present = ops[n], dict(zip(columns, held, strict=True))
            if op.at is not None or (oid, place) in self._taken:
                continue
            if all(table.same(name, present[name], op.key[at]) for at, name in json):
                op.at, op.present = (oid, place), present
                self._taken.add(op.at)


def _goes(op: Op) -> bool:
    """Whether the row that is there will not be there under its key."""
    return op.action == "delete" or (
        op.action == "update" and any(column in op.values for column in op.key_columns)
    )


def compare(op: Op) -> None:
    """What of a row is as it should be, is to be set, or was set by something else."""
    if op.conflicts:
        return
    held = op.present
    over = op.effect.over
    if over is not None and held is not None:
        # The row that is there is another one, which has the key by now.
        op.done = all(held.get(column) == value for column, value in op.values.items())
        if not op.done:
            op.conflict("gone", "the row was deleted since, and another one has its key", over)
        return
    if held is None:
        if op.action == "delete":
            op.done = True
        elif op.action == "update":
            op.conflict("gone", "the row is not there any more", over)
        else:
            op.fields = tuple(
                PlannedField(column, None, None, op.values[column], "set")
                for column in op.table.columns
                if column in op.values
            )
        return
    if op.action == "insert":
        if all(op.table.same(c, held.get(c), value) for c, value in op.values.items()):
            op.done = True
        else:
            op.conflict("taken", "another row has this key by now")
        return
    fields: list[PlannedField] = []
    for column in op.table.columns:
        if column not in op.expected and column not in op.values and column not in op.between:
            continue
        present, expected = held.get(column), op.expected.get(column)
        between = op.between.get(column)
        target = op.values.get(column) if op.action == "update" else None
        if op.action == "update" and present == target:
            fields.append(PlannedField(column, present, expected, target, "done"))
        elif between is None and (
            column not in op.expected or op.table.same(column, present, expected)
        ):
            fields.append(PlannedField(column, present, expected, target, "set"))
        else:
            fields.append(PlannedField(column, present, expected, target, "conflict", between))
            op.conflict("changed", f"{column} {_set_since(op, column)}", between)
    for column in op.untold:
        if held.get(column) not in (None, op.filled.get(column)):
            fields.append(PlannedField(column, held[column], None, None, "conflict"))
            op.conflict(
                "changed", f"{column} was added since, and holds what the history does not know"
            )
    op.fields = tuple(fields)
    if op.action == "update":
        op.values = {field.column: field.target for field in fields if field.mark == "set"}
        op.done = not op.conflicts and not op.values


def _set_since(op: Op, column: str) -> str:
    if op.between.get(column) is None:
        return "was set since by a change that is not in the history"
    if column not in op.expected:
        return "may have been set since, which can't be told"
    return "was set since"


def _columns(table: Table, ops: Sequence[Op], foreign_keys: Sequence[ForeignKey]) -> list[str]:
    """What has to be known of the rows: what is compared, and what others refer to."""
    names: dict[str, None] = {}
    for op in ops:
        names |= dict.fromkeys((*op.key_columns, *op.expected, *op.values, *op.between, *op.untold))
    for unique in table.uniques:
        names |= dict.fromkeys(unique.columns)
    for each in foreign_keys:
        if each.child == table.oid:
            names |= dict.fromkeys(each.columns)
        if each.parent == table.oid:
            names |= dict.fromkeys(each.references)
    return [*names]


def texts(columns: Sequence[str]) -> sql.Composed:
    """The columns of `t` as texts, each behind a comma."""
    return sql.Composed([sql.SQL(", {}::text").format(quoted("t", column)) for column in columns])


def given(columns: Sequence[str]) -> sql.Composed:
    """`w`: a parameter of numbers `n`, and one of texts for each of the columns, `k0` and on."""
    arrays: list[sql.Composable] = [sql.SQL("%s::int[]")]
    names: list[sql.Composable] = [sql.Identifier("n")]
    for n, _ in enumerate(columns):
        arrays.append(sql.SQL("%s::text[]"))
        names.append(sql.Identifier(f"k{n}"))
    return sql.SQL("unnest({}) w ({})").format(
        sql.SQL(", ").join(arrays), sql.SQL(", ").join(names)
    )


def matches(
    table: Table, columns: Sequence[str], typed_as: Sequence[str], *, types_of: Table | None = None
) -> sql.Composed:
    """That a row `t` has in these columns what `w` gives, read in the types of `typed_as`."""
    return sql.SQL(" and ").join(
        sql.SQL("{} = {}").format(
            quoted("t", column),
            (types_of or table).cast(like, sql.Identifier("w", f"k{n}")),
        )
        for n, (column, like) in enumerate(zip(columns, typed_as, strict=True))
    )


def transposed(rows: Iterator[Sequence[str | None]] | Any) -> list[list[str | None]]:
    return [list(column) for column in zip(*rows, strict=True)]


def batches(items: Sequence[_Each], size: int) -> Iterator[Sequence[_Each]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]
