"""What all tables of a schema hold at a moment, written down while it is so: as `pg_dump` would.

And how that differs from what a history says of that moment, later.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.json import set_json_loads

from bemi.lsn import Lsn

Connection = psycopg.Connection[Any]
Texts = tuple[str | None, ...]
Found = tuple[dict[str, Any], Iterable[str]]
"""A row's values and its flags."""

_UNKNOWN: Final = ("stale", "unchanged")

_COLUMNS: Final = """
select c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
    coalesce(b.typcategory, t.typcategory) in ('A', 'B', 'N')
        or coalesce(b.typname, t.typname) in ('json', 'jsonb'),
    coalesce(b.typname, t.typname) in ('json', 'jsonb'),
    a.attnum = any(coalesce(k.indkey::int2[], '{}'))
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    and a.attgenerated = ''
join pg_type t on t.oid = a.atttypid
left join pg_type b on t.typtype = 'd' and b.oid = t.typbasetype
left join pg_index k on k.indrelid = c.oid and k.indisprimary
where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'p')
    and not (c.relkind = 'p' and c.relispartition)
order by c.oid, a.attnum
"""

_REFERENCES: Final = """
select f.conrelid::regclass::text, f.confrelid::regclass::text,
    array(select a.attname::text from unnest(f.conkey) with ordinality k (n, i)
        join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.n order by i),
    array(select a.attname::text from unnest(f.confkey) with ordinality k (n, i)
        join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.n order by i)
from pg_constraint f
where f.contype = 'f' and f.connamespace = 'app'::regnamespace and f.conparentid = 0
order by f.oid
"""


@dataclass
class TableThen:
    name: str
    types: dict[str, str] = field(default_factory=dict)
    """By column, in their order."""
    key: list[str] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    """Rows as the relation `changes` is documented to spell them."""
    texts: Counter[Texts] = field(default_factory=Counter)
    """Rows with each column in PostgreSQL's text form."""


@dataclass
class Join:
    """Rows of a table with those that they refer to. `query` has `{}` for the tables' schema."""

    tables: tuple[str, str]
    query: sql.SQL
    rows: Counter[Texts]


@dataclass
class Truth:
    """Of a moment: all that was committed by `position` and `time`, and nothing else."""

    position: Lsn
    time: datetime
    tables: dict[str, TableThen]
    joins: list["Join"]


_POSITION: Final = re.compile("between .* was made|[0-9A-F]+/[0-9A-F]+")

JSON_NULL: Final = "JSON's null"


def record(conn: Connection) -> Truth:
    """As of now; to be called while nobody commits. Whoever has not committed yet is no matter."""
    set_json_loads(functools.partial(json.loads, parse_float=Decimal), conn)
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("set local search_path = pg_catalog")
        conn.execute("set local timezone = 'UTC'")
        row = conn.execute(
            "select (pg_current_wal_insert_lsn() - '0/0')::bigint, clock_timestamp()"
        ).fetchone()
        assert row is not None
        tables: dict[str, TableThen] = {}
        images: dict[str, list[sql.Composable]] = {}
        for name, column, kind, natural, is_json, in_key in conn.execute(_COLUMNS):
            table = tables.setdefault(name, TableThen(name))
            table.types[column] = kind
            if in_key:
                table.key.append(column)
            value = sql.SQL("to_jsonb({})" if natural else "to_jsonb({}::text)")
            if is_json:
                value = sql.SQL("case when {0}::text = 'null' then {1} else to_jsonb({0}) end")
            images.setdefault(name, []).append(
                value.format(sql.Identifier(column), sql.Literal(json.dumps(JSON_NULL)))
                if is_json
                else value.format(sql.Identifier(column))
            )
        for table in tables.values():
            for values, *texts in conn.execute(
                sql.SQL("select json_build_array({}), {} from {}").format(
                    sql.SQL(", ").join(images[table.name]),
                    texts_of("t", table.types),
                    sql.Identifier("app", table.name) + sql.SQL(" t"),
                )
            ):
                table.images.append(dict(zip(table.types, values, strict=True)))
                table.texts[tuple(texts)] += 1
        joins: list[Join] = []
        for one, other, here, there in conn.execute(_REFERENCES).fetchall():
            first, second = (_unqualified(conn, each) for each in (one, other))
            query = sql.SQL(
                sql.SQL("select {}, {} from {{0}}.{} a left join {{0}}.{} b on {}")
                .format(
                    texts_of("a", tables[first].types),
                    texts_of("b", tables[second].types),
                    sql.Identifier(first),
                    sql.Identifier(second),
                    sql.SQL(" and ").join(
                        sql.SQL("a.{} = b.{}").format(sql.Identifier(h), sql.Identifier(t))
                        for h, t in zip(here, there, strict=True)
                    ),
                )
                .as_string(conn)
            )
            rows = Counter(conn.execute(query.format(sql.Identifier("app"))))
            joins.append(Join((first, second), query, rows))
    # What commits next may have its record begin just here.
    return Truth(Lsn(row[0] - 1), row[1], tables, joins)


def texts_of(alias: str, types: Mapping[str, str]) -> sql.Composed:
    """The columns in PostgreSQL's text form; of JSON what it says, no history has more of it."""
    return sql.SQL(", ").join(
        sql.SQL("{}::jsonb::text" if kind == "json" else "{}::text").format(
            sql.Identifier(alias, column)
        )
        for column, kind in types.items()
    )


def _unqualified(conn: Connection, name: str) -> str:
    row = conn.execute("select relname::text from pg_class where oid = %s::regclass", [name])
    found = row.fetchone()
    assert found is not None
    return str(found[0])


@dataclass
class Comparison:
    """What was compared, and what came of it."""

    tables: int = 0
    rows: int = 0
    joined: int = 0
    """Views and joins of them."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Values that the history says that it does not know, by the flag."""
    refused: Counter[str] = field(default_factory=Counter)
    """Tables at moments of which it says that it can't know them, by the reason."""
    differences: list[str] = field(default_factory=list)
    moment: str = ""
    """Of which the next differences are."""

    def refuse(self, reason: str) -> None:
        self.refused[_POSITION.sub("…", reason.partition(" is not known")[2] or reason)] += 1

    def __str__(self) -> str:
        return (
            f"{self.tables} tables at moments, {self.rows} rows, {self.joined} views and joins; "
            f"{len(self.differences)} differ; "
            f"values not known: {dict(self.unknown) or 'none'}; "
            f"refused: {dict(self.refused) or 'none'}"
        )

    def add(self, truth: TableThen, found: Sequence[Found]) -> bool:
        """`found`: the rows' values with their flags, as a history tells them.

        Returns whether all values are told.
        """
        self.tables += 1
        self.rows += len(found)
        if not self._shape(truth, found):
            return False
        unknown: dict[int, set[str]] = {}
        for at, (values, flags) in enumerate(found):
            for word, _, column in _parted(flags):
                if word in _UNKNOWN:
                    unknown.setdefault(at, set()).add(column)
                    self.unknown[word] += 1
                elif word == "json_null" and column in values and values[column] is None:
                    values[column] = JSON_NULL
                elif word == "text":
                    self.unknown["kept as text, not compared"] += 1
                    unknown.setdefault(at, set()).add(column)
        left_out = {column for columns in unknown.values() for column in columns}
        if not left_out:
            self._multiset(truth, [values for values, _ in found], truth.images)
        elif not truth.key or left_out & set(truth.key):
            self._multiset(
                truth,
                [_without(values, left_out) for values, _ in found],
                [_without(values, left_out) for values in truth.images],
            )
        else:
            by_key = {_spelled(_only(values, truth.key)): values for values in truth.images}
            expected = []
            for at, (values, _) in enumerate(found):
                true = by_key.pop(_spelled(_only(values, truth.key)), {})
                expected.append(_without(true, unknown.get(at, set())))
            self._multiset(
                truth,
                [_without(values, unknown.get(at, set())) for at, (values, _) in enumerate(found)],
                [*expected, *by_key.values()],
            )
        return not left_out

    def add_texts(self, what: str, true: Counter[Texts], found: Counter[Texts]) -> None:
        """Rows of a view or of a join of some."""
        self.joined += 1
        for kind, these in (("missing", true - found), ("extra", found - true)):
            for row, count in these.items():
                self.differences.append(f"{self.moment}: {what}: {kind} {row} × {count}")

    def _shape(self, truth: TableThen, found: Sequence[Found]) -> bool:
        """Whether the rows have the columns of then; those that are not known may be missing."""
        for values, flags in found:
            unknown = {name for word, _, name in _parted(flags) if word in _UNKNOWN}
            if values.keys() - truth.types.keys() or truth.types.keys() - values.keys() - unknown:
                self._differs(truth, f"columns {list(values)} for {list(truth.types)}")
                return False
        return True

    def _differs(self, truth: TableThen, what: str) -> None:
        self.differences.append(f"{self.moment}: {truth.name}: {what}")

    def _multiset(
        self, truth: TableThen, found: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]]
    ) -> None:
        has, should = Counter(map(_spelled, found)), Counter(map(_spelled, rows))
        for kind, these in (("missing", should - has), ("extra", has - should)):
            for row, count in these.items():
                self._differs(truth, f"{kind} {row} × {count}")


def _parted(flags: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    return (flag.partition(":") for flag in flags)


def _without(values: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in columns}


def _only(values: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    return {name: values.get(name) for name in columns}


def _spelled(values: dict[str, Any]) -> str:
    # 1.0 is 1.00 no more than it is in PostgreSQL's text.
    return json.dumps(
        values, sort_keys=True, default=lambda value: f"{value:f}", ensure_ascii=False
    )
