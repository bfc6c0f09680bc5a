"""The database that a plan is for: its tables and their constraints, as its catalog has them."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

STREAM: Final = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
}
"""Under which values have the text that the history has of them."""

READ_BY: Final = ("lc_monetary", "xmloption", "array_nulls")
WRITTEN_BY: Final = {name: value for name, value in STREAM.items() if name not in READ_BY}


def quoted(*names: str) -> sql.Identifier:
    """A name in a statement that has parameters, where psycopg takes a bare % for one."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


class Column(msgspec.Struct, frozen=True):
    """`type`: its type, of a domain the base type, as the catalog spells it."""

    name: str
    number: int
    type: str
    generated: bool
    identity: bool
    required: bool
    """It takes no null and has no default."""
    kind: str
    """`json`, or the category of its type, such as N for numbers."""
    nullable: bool


def _parsed(text: str) -> object:
    """With numbers as they are spelled, which is also what tells them from truth values."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


class Unique(msgspec.Struct, frozen=True):
    """A unique index of plain columns. `deferrable`: checked at the end, if it is asked for."""

    name: str
    columns: tuple[str, ...]
    deferrable: bool
    nulls_equal: bool


class ForeignKey(msgspec.Struct, frozen=True):
    """`at_once`: what it does about children does not wait for the end."""

    name: str
    child: int
    columns: tuple[str, ...]
    parent: int
    references: tuple[str, ...]
    deferrable: bool
    at_once: bool
    on_delete: str
    on_update: str


class Table(msgspec.Struct, frozen=True, eq=False):
    """`oid`: of a partition, that of the table above. `only`: those below it are others."""

    oid: int
    schema: str
    name: str
    only: bool
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    uniques: tuple[Unique, ...]
    triggers: tuple[str, ...]
    row_security: bool

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return quoted(self.schema, self.name)

    def cast(self, column: str, value: sql.Composable) -> sql.Composed:
        """`value` in the column's type, of a domain in its base type, and of any length: assigning
        checks it, where casting would cut it."""
        if self.columns[column].type == "regclass":
            # Its cast from text takes names only; its input takes what it writes.
            return sql.SQL("pg_catalog.regclassin(pg_catalog.textout({}))").format(value)
        # As the server's own `format_type` spells and quotes it.
        spelled = sql.SQL(self.columns[column].type.replace("%", "%%"))
        return sql.SQL("cast({} as {})").format(value, spelled)

    @property
    def rows(self) -> sql.Composed:
        """The table as `t`, to read from or to write to: its own rows and those of partitions."""
        return sql.SQL("only {} t" if self.only else "{} t").format(self.identifier)

    def same(self, column: str, one: str | None, other: str | None) -> bool:
        """Whether two texts are of one value. A number's or a time's places don't count, since
        altering the column adds and takes some; nor does the spelling of `json`."""
        if one == other:
            return True
        if one is None or other is None:
            return False
        match self.columns[column].kind:
            case "N":
                with suppress(InvalidOperation):
                    return Decimal(one) == Decimal(other)
            case "json":
                with suppress(ValueError, RecursionError):
                    return _parsed(one) == _parsed(other)
        return False


_TABLES: Final[LiteralString] = """
with recursive up (given, oid) as (
    select oid::bigint, oid from pg_catalog.pg_class where {which} and relkind in ('r', 'p')
    union all
    select up.given, i.inhparent from up join pg_catalog.pg_inherits i on i.inhrelid = up.oid
    join pg_catalog.pg_class c on c.oid = up.oid and c.relispartition
)
select up.given, c.oid::bigint, n.nspname, c.relname, c.relkind = 'r',
    pg_catalog.row_security_active(c.oid)
from up join pg_catalog.pg_class c using (oid)
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where not c.relispartition
"""

_COLUMNS: Final[LiteralString] = """
with recursive base (attrelid, attnum, type) as (
    select a.attrelid, a.attnum, a.atttypid from pg_catalog.pg_attribute a
    where a.attrelid = any(%(oids)s) and a.attnum > 0 and not a.attisdropped
    union all
    select b.attrelid, b.attnum, t.typbasetype from base b
    join pg_catalog.pg_type t on t.oid = b.type and t.typtype = 'd'
)
select a.attrelid::bigint, a.attname, a.attnum::int, pg_catalog.format_type(b.type, -1),
    a.attgenerated <> '', a.attidentity <> '',
    a.attnotnull and not a.atthasdef and a.attidentity = '',
    case when b.type = 114 then 'json' else t.typcategory::text end,
    not a.attnotnull
from base b
join pg_catalog.pg_type t on t.oid = b.type and t.typtype <> 'd'
join pg_catalog.pg_attribute a using (attrelid, attnum)
order by a.attrelid, a.attnum
"""

_UNIQUES: Final[LiteralString] = """
select i.indrelid::bigint, c.relname, i.indisprimary,
    array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality k (number, n)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
        where k.n <= i.indnkeyatts order by k.n),
    not i.indimmediate, coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)
from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
where i.indrelid = any(%(oids)s) and i.indisunique and i.indpred is null and i.indexprs is null
    and i.indisvalid
order by i.indexrelid
"""

_FOREIGN_KEYS: Final[LiteralString] = """
with recursive up (given, oid) as (
    select oid, oid from pg_catalog.pg_class where relkind in ('r', 'p')
    union all
    select up.given, i.inhparent from up join pg_catalog.pg_inherits i on i.inhrelid = up.oid
    join pg_catalog.pg_class c on c.oid = up.oid and c.relispartition
),
root as (
    select up.given, up.oid from up join pg_catalog.pg_class c using (oid)
    where not c.relispartition
)
select f.conname, child.oid::bigint, parent.oid::bigint,
    array(select a.attname::text from unnest(f.conkey) with ordinality k (number, n)
        join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.number
        order by k.n),
    array(select a.attname::text from unnest(f.confkey) with ordinality k (number, n)
        join pg_catalog.pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.number
        order by k.n),
    f.condeferrable, f.confdeltype::text, f.confupdtype::text
from pg_catalog.pg_constraint f
join root child on child.given = f.conrelid join root parent on parent.given = f.confrelid
where f.contype = 'f' and f.conparentid = 0
    and (child.oid = any(%(oids)s) or parent.oid = any(%(oids)s))
order by f.conrelid, f.conname
"""

_TRIGGERS: Final[LiteralString] = """
select t.tgrelid::bigint, array_agg(distinct t.tgname::text) from pg_catalog.pg_trigger t
where t.tgrelid = any(%(oids)s) and not t.tgisinternal and t.tgenabled in ('A', case
    pg_catalog.current_setting('session_replication_role') when 'replica' then 'R' else 'O' end)
group by 1
"""


class Target:
    """What the catalog says of the tables that are asked for, and of those that refer to them."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._tables: dict[int, Table] = {}
        self.foreign_keys: list[ForeignKey] = []

    def by_oid(self, oids: Collection[int]) -> dict[int, Table]:
        """Tables by the OIDs that are given, or by those of their partitions."""
        return self._read(sql.SQL("oid = any(%(which)s)"), [*oids])

    def by_name(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Table]:
        """Tables by schema and name."""
        which = sql.SQL(
            "(relnamespace, relname::text) in (select n.oid, w.name"
            " from unnest(%(which)s::text[], %(names)s::text[]) w (schema, name)"
            " join pg_catalog.pg_namespace n on n.nspname = w.schema)"
        )
        found = self._read(which, [s for s, _ in names], names=[name for _, name in names])
        return {(table.schema, table.name): table for table in found.values()}

    def names(self, oids: Collection[int]) -> dict[int, dict[int, str]]:
        """Of each table that is there, what its columns are called now, by their numbers."""
        found: dict[int, dict[int, str]] = {}
        for oid, number, name in self._conn.execute(
            "select attrelid::bigint, attnum::int, attname from pg_catalog.pg_attribute"
            " where attrelid = any(%s) and attnum > 0 and not attisdropped",
            [[*oids]],
        ):
            found.setdefault(oid, {})[number] = name
        return found

    def hold(self, tables: Iterable[Table]) -> None:
        """Keep tables as they are, in the order of their names, until the transaction ends. What
        was read of them before may be out of date."""
        for table in sorted(tables, key=lambda each: each.label):
            self._conn.execute(sql.SQL("select from {} where false").format(table.rows), [])

    def table(self, oid: int) -> Table:
        return self._tables[oid]

    def _read(self, which: sql.SQL, value: Sequence[object], **more: object) -> dict[int, Table]:
        rows = self._conn.execute(
            sql.SQL(_TABLES).format(which=which), {"which": value, **more}
        ).fetchall()
        of = {row[0]: row[1] for row in rows}
        self._take([row[1:] for row in rows])
        oids = [*{*of.values()}]
        self.foreign_keys = [
            ForeignKey(
                name,
                child,
                tuple(columns),
                parent,
                tuple(references),
                deferrable,
                on_delete != "a" or on_update != "a",
                on_delete,
                on_update,
            )
            for name, child, parent, columns, references, deferrable, on_delete, on_update in (
                self._conn.execute(_FOREIGN_KEYS, {"oids": oids})
            )
        ]
        others = {oid for each in self.foreign_keys for oid in (each.child, each.parent)}
        if missing := [*others - self._tables.keys()]:
            rows = self._conn.execute(
                sql.SQL(_TABLES).format(which=sql.SQL("oid = any(%(which)s)")), {"which": missing}
            ).fetchall()
            self._take([row[1:] for row in rows])
        return {given: self._tables[oid] for given, oid in of.items()}

    def _take(self, rows: Sequence[tuple[Any, ...]]) -> None:
        oids = {"oids": [*{row[0] for row in rows}]}
        columns: dict[int, dict[str, Column]] = {}
        with settings(self._conn, {"search_path": ""}):
            # Types with their schemas, so that every session means the same by them.
            for oid, name, *rest in self._conn.execute(_COLUMNS, oids).fetchall():
                columns.setdefault(oid, {})[name] = Column(name, *rest)
        uniques: dict[int, list[Unique]] = {}
        keys: dict[int, tuple[str, ...]] = {}
        for oid, name, primary, names, deferrable, nulls in self._conn.execute(_UNIQUES, oids):
            if primary:
                keys[oid] = tuple(names)
            uniques.setdefault(oid, []).append(Unique(name, tuple(names), deferrable, nulls))
        triggers = dict(self._conn.execute(_TRIGGERS, oids).fetchall())
        for oid, schema, name, only, row_security in rows:
            self._tables[oid] = Table(
                oid,
                schema,
                name,
                only,
                columns.get(oid, {}),
                keys.get(oid, ()),
                tuple(uniques.get(oid, ())),
                tuple(triggers.get(oid, ())),
                row_security,
            )


@contextmanager
def as_stored(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Within the block, in a transaction, values have the text that they have in the history.

    Afterwards what triggers that fire may write by is the session's again; how money, XML and
    arrays are read stays, for the values that are written.
    """
    _set(conn, {name: STREAM[name] for name in READ_BY})
    with settings(conn, WRITTEN_BY):
        yield


@contextmanager
def settings(conn: psycopg.Connection[Any], values: Mapping[str, str]) -> Iterator[None]:
    """Within the block, in a transaction, the session's settings are these."""
    row = conn.execute(
        "select array(select current_setting(n) from unnest(%s::text[]) with ordinality w (n, at)"
        " order by at)",
        [[*values]],
    ).fetchone()
    assert row is not None
    _set(conn, values)
    yield
    _set(conn, dict(zip(values, row[0], strict=True)))


def _set(conn: psycopg.Connection[Any], values: Mapping[str, str]) -> None:
    conn.execute(
        "select set_config(n, v, true) from unnest(%s::text[], %s::text[]) w (n, v)",
        [[*values], [*values.values()]],
    )
