"""Random transactions on whatever tables a schema has at the moment, and DDL between and within.

It reads the catalog and the keys that there are, so that it goes on whatever the DDL made of the
tables. What it does depends on the seed alone. Statements that a constraint refuses are undone by
a savepoint, as an application does it that tries.
"""

import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

_COLUMNS: Final = """
select c.oid::bigint, c.relname::text, c.relkind::text, a.attname::text,
    coalesce(b.typname, t.typname)::text, t.typname::text, t.typtype::text,
    array_position(k.indkey::int2[], a.attnum)
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    and a.attgenerated = ''
join pg_type t on t.oid = a.atttypid
left join pg_type b on t.typtype = 'd' and b.oid = t.typbasetype
left join pg_index k on k.indrelid = c.oid and k.indisprimary
where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    and c.relname <> 'pulse'
order by c.oid, a.attnum
"""

_REFERENCES: Final = """
select f.conrelid::bigint, r.relname::text,
    array(select a.attname::text from unnest(f.conkey) with ordinality k (n, i)
        join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.n order by i),
    array(select a.attname::text from unnest(f.confkey) with ordinality k (n, i)
        join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.n order by i)
from pg_constraint f join pg_class r on r.oid = f.confrelid
where f.contype = 'f' and f.connamespace = 'app'::regnamespace and f.conparentid = 0
order by f.oid
"""

_NEW: Final = ("new", "Ne w", 'ne"w', "x" * 58)
_WORDS: Final = ("", "NULL", "ü€\U0001f600", 'a"b\\c', "x\ty\n", "it's; drop table x; --", "plain")


@dataclass
class Table:
    """As the catalog has it now. `references`: the table, its columns there, and those here."""

    name: str
    partitioned: bool
    columns: dict[str, str] = field(default_factory=dict)
    key: list[str] = field(default_factory=list)
    references: list[tuple[str, list[str], list[str]]] = field(default_factory=list)

    @property
    def sql(self) -> sql.Identifier:
        return sql.Identifier("app", self.name)

    @property
    def referring(self) -> set[str]:
        return {column for _, _, here in self.references for column in here}


class RandomWork:
    """Does one transaction after the other on `conn`, and DDL when told to."""

    def __init__(self, conn: Connection, chance: random.Random) -> None:
        self.conn = conn
        self.chance = chance
        self.tables: list[Table] = []
        self.altered: list[str] = []
        """The DDL so far."""
        self._number = 5000
        self.look()

    def look(self) -> None:
        found: dict[int, Table] = {}
        keys: dict[int, dict[int, str]] = {}
        for oid, name, kind, column, base, own, typtype, in_key in self.conn.execute(_COLUMNS):
            table = found.setdefault(oid, Table(name, kind == "p"))
            table.columns[column] = own if typtype in "ec" else base
            if in_key is not None:
                keys.setdefault(oid, {})[in_key] = column
        for oid, columns in keys.items():
            found[oid].key = [columns[at] for at in sorted(columns)]
        for oid, to, here, there in self.conn.execute(_REFERENCES):
            if oid in found:
                found[oid].references.append((to, there, here))
        self.tables = list(found.values())

    def transaction(self, *, ddl: bool = False) -> None:
        """One with a few statements; with `ddl`, one of them alters the schema."""
        steps: list[Callable[[], None]] = [self._step] * self.chance.choice([1, 1, 2, 3, 6])
        if ddl:
            steps.insert(self.chance.randint(0, len(steps)), self.alter)
        with self.conn.transaction():
            if self.chance.random() < 0.7:
                self.conn.execute(
                    "select pg_logical_emit_message(true, '_bemi', %s)",
                    [json.dumps({"user_id": self.chance.randrange(9)})],
                )
            for step in steps:
                step()
            if not ddl and self.chance.random() < 0.05:
                raise psycopg.Rollback

    def _step(self) -> None:
        try:
            with self.conn.transaction():
                for _ in range(self.chance.choice([1, 1, 1, 2])):
                    self._statement()
                self.conn.execute("set constraints all immediate")
                self.conn.execute("set constraints all deferred")
                if self.chance.random() < 0.05:
                    raise psycopg.Rollback
        except (
            psycopg.IntegrityError,
            psycopg.DataError,
            psycopg.errors.UnsafeNewEnumValueUsage,  # in the transaction that made it
            psycopg.errors.ProgramLimitExceeded,  # a long text in an index
        ):
            pass

    def _statement(self) -> None:
        chance = self.chance
        table = chance.choice(self.tables)
        chance.choices(
            [
                self._insert,
                self._upsert,
                self._copy,
                self._update,
                self._move,
                self._delete,
                self._truncate,
            ],
            [30, 10, 5, 50, 12, 8, 0.5],
        )[0](table)

    def _insert(self, table: Table) -> None:
        for _ in range(self.chance.choice([1, 1, 2, 5])):
            self._put(table, self.row(table), sql.SQL(""))

    def _upsert(self, table: Table) -> None:
        others = [name for name in table.columns if name not in table.key]
        old = self.some_key(table)
        if not table.key or not others or old is None:
            return self._insert(table)
        row = {**self.row(table), **dict(zip(table.key, old, strict=True))}
        return self._put(
            table,
            row,
            sql.SQL(" on conflict ({}) do update set {}").format(
                _names(table.key),
                sql.SQL(", ").join(
                    sql.SQL("{0} = excluded.{0}").format(sql.Identifier(each))
                    for each in self.chance.sample(others, min(2, len(others)))
                ),
            ),
        )

    def _put(self, table: Table, row: dict[str, Any], behind: sql.Composable) -> None:
        self.conn.execute(
            sql.SQL("insert into {} ({}) values ({}){}").format(
                table.sql,
                _names(row),
                sql.SQL(", ").join(sql.Placeholder() * len(row)),
                behind,
            ),
            list(row.values()),
        )

    def _copy(self, table: Table) -> None:
        names = list(table.columns)
        rows = [self.row(table) for _ in range(self.chance.randint(2, 6))]
        statement = sql.SQL("copy {} ({}) from stdin").format(table.sql, _names(names))
        with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row([row.get(name) for name in names])

    def _update(self, table: Table) -> None:
        names = [name for name in table.columns if name not in table.key]
        if names and (where := self._where(table)) is not None:
            row = self.row(table)
            chosen = self.chance.sample(names, min(self.chance.randint(1, 3), len(names)))
            self._set(table, {name: row.get(name) for name in chosen}, *where)

    def _move(self, table: Table) -> None:
        """To another key, and another partition where its region is in it."""
        if table.key and (where := self._where(table)) is not None:
            row = self.row(table)
            column = self.chance.choice(table.key)
            self._set(table, {column: row[column]}, *where)

    def _set(
        self, table: Table, values: dict[str, Any], where: sql.Composable, given: Sequence[Any]
    ) -> None:
        self.conn.execute(
            sql.SQL("update {} set {} where {}").format(
                table.sql,
                sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(n)) for n in values),
                where,
            ),
            [*values.values(), *given],
        )

    def _delete(self, table: Table) -> None:
        if (where := self._where(table)) is not None:
            self.conn.execute(
                sql.SQL("delete from {} where {}").format(table.sql, where[0]), where[1]
            )

    def _truncate(self, table: Table) -> None:
        cascade = "" if self.chance.random() < 0.8 else " cascade"
        # `cascade` of what all refer to would leave nothing to look at.
        if cascade and sum(to == table.name for t in self.tables for to, *_ in t.references) > 1:
            cascade = ""
        try:
            with self.conn.transaction():
                self.conn.execute(sql.SQL("truncate {}" + cascade).format(table.sql))
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.ObjectInUse):
            pass  # another table refers to it, or checks are still to come

    def _where(self, table: Table) -> tuple[sql.Composable, list[Any]] | None:
        if not table.key:
            column = self.chance.choice(list(table.columns))
            rows = self.conn.execute(
                sql.SQL("select {0}::text from {1} order by 1").format(
                    sql.Identifier(column), table.sql
                )
            ).fetchall()
            if not rows:
                return None
            return (
                sql.SQL("{}::text is not distinct from %s").format(sql.Identifier(column)),
                [self.chance.choice(rows)[0]],
            )
        key = self.some_key(table)
        if key is None:
            return None
        return (
            sql.SQL(" and ").join(
                sql.SQL("{} = %s").format(sql.Identifier(name)) for name in table.key
            ),
            list(key),
        )

    def some_key(self, table: Table) -> tuple[Any, ...] | None:
        if not table.key:
            return None
        return self._some(table.sql, table.key)

    def _some(self, table: sql.Composable, columns: Sequence[str]) -> tuple[Any, ...] | None:
        rows = self.conn.execute(
            sql.SQL("select {0} from {1} order by {0}").format(_names(columns), table)
        ).fetchall()
        return self.chance.choice(rows) if rows else None

    def row(self, table: Table) -> dict[str, Any]:
        row = {name: self._value(name, kind) for name, kind in table.columns.items()}
        for to, there, here in table.references:
            found = self._some(sql.Identifier("app", to), there)
            if found is None or (
                self.chance.random() < 0.25 and not any(name in table.key for name in here)
            ):
                found = (None,) * len(here)
            # A column of several references has the value of the first.
            if not any(name in table.key and row.get(name) is None for name in here):
                row.update(zip(here, found, strict=True))
        for name in table.key:
            if row[name] is None:
                row[name] = self._value(name, table.columns[name], null=False)
        return row

    def _value(self, name: str, kind: str, *, null: bool = True) -> Any:
        chance = self.chance
        self._number += 1
        if null and name not in ("id", "code", "sku", "region") and chance.random() < 0.08:
            return None
        if name == "region":
            return chance.choice(["north", "south"])
        if name == "email":
            return f"p{self._number}@example.com"
        match kind:
            case "int2" | "int4" | "int8":
                if name in ("number", "line"):
                    return chance.randrange(1, 12)
                if name == "id" and chance.random() < 0.1:
                    return chance.randrange(1, 40)
                return self._number
            case "numeric":
                return chance.choice(["1", "1.0", "-0.50", "12345678.25", f"{self._number}.10"])
            case "float8":
                return chance.choice(["0.5", "1e-7", "1e300", "-0.25", "NaN"])
            case "bool":
                return chance.choice([True, False])
            case "date":
                return f"2026-0{chance.randint(1, 9)}-11"
            case "timestamptz":
                return chance.choice(
                    ["2026-05-08 12:00+02", "infinity", "2026-01-01 00:00:00.5+00"]
                )
            case "_text":
                return chance.choice(
                    ["{}", "{a,NULL}", '{"x,y","q\\"uote"}', f"{{n{self._number}}}"]
                )
            case "json" | "jsonb":
                return chance.choice(
                    ["null", '{"b": 1, "a": [1, 2.50]}', '"x"', f'{{"n": {self._number}}}']
                )
            case "address":
                return chance.choice([f"(Street,{self._number})", '("a ""b"", c",)'])
            case "mood":
                return chance.choice(self._labels())
        if chance.random() < 0.15:
            return "".join(chance.choices(string.ascii_letters, k=4000))
        return f"{chance.choice(_WORDS)} {self._number}"

    def _labels(self) -> list[str]:
        rows = self.conn.execute(
            "select enumlabel from pg_enum where enumtypid = 'app.mood'::regtype order by 1"
        )
        return [row[0] for row in rows]

    def alter(self, kind: str | None = None) -> None:
        """Some DDL, of one of `KINDS`."""
        self._number += 1
        for _ in range(20):
            chosen = kind or self.chance.choice(KINDS)
            statement = self._ddl(chosen, self._number)
            if statement is None:
                continue
            try:
                with self.conn.transaction():
                    self.conn.execute("set constraints all immediate")
                    self.conn.execute(statement)
            except psycopg.DatabaseError:
                continue  # as attaching a partition that has other columns by now
            self.altered.append(f"{chosen}: {statement.as_string(self.conn)}")
            self.look()
            self._touch()
            return

    def _touch(self) -> None:
        """Write a row of each table as it is, so that the log tells of the table's new shape."""
        for (name,) in self.conn.execute(
            "select relname::text from pg_class c where relkind = 'r'"
            " and relnamespace = 'app'::regnamespace order by oid"
        ).fetchall():
            table = sql.Identifier("app", name)
            column = self.conn.execute(
                "select attname::text from pg_attribute where attrelid = %s::regclass"
                " and attnum > 0 and not attisdropped order by attnum limit 1",
                [table.as_string(self.conn)],
            ).fetchone()
            assert column is not None
            self.conn.execute(
                sql.SQL(
                    "update {0} set {1} = {1} where ctid = (select ctid from {0} limit 1)"
                ).format(table, sql.Identifier(column[0]))
            )

    def _ddl(self, kind: str, number: int) -> sql.Composed | None:
        chance = self.chance
        table = chance.choice(self.tables)
        free = [name for name in table.columns if name not in {*table.key} | table.referring]
        free = [name for name in free if name != "email"]
        fresh = sql.Identifier(f"{chance.choice(_NEW)} {number}")
        own = [name for name in free if name.endswith(tuple("0123456789"))]
        some = sql.Identifier(chance.choice(free)) if free else None
        match kind:
            case "rename table":
                return sql.SQL("alter table {} rename to {}").format(
                    table.sql, sql.Identifier(f"{table.name.split(' ')[0]} {number}")
                )
            case "rename column" if some:
                return sql.SQL("alter table {} rename {} to {}").format(table.sql, some, fresh)
            case "rename key column" if table.key and "region" not in table.columns:
                old = sql.Identifier(chance.choice(table.key))
                new = sql.Identifier(f"{chance.choice(table.key).split(' ')[0]} {number}")
                return sql.SQL("alter table {} rename {} to {}").format(table.sql, old, new)
            case "add column":
                what = sql.SQL(chance.choice(["int", "text", "app.mood", "numeric", "text[]"]))
                return sql.SQL("alter table {} add {} {}").format(table.sql, fresh, what)
            case "add column with a default":
                what = sql.SQL(
                    chance.choice(
                        [
                            "int default 7",
                            "text default 'it''s' not null",
                            "date default '2026-01-02'",
                        ]
                    )
                )
                return sql.SQL("alter table {} add {} {}").format(table.sql, fresh, what)
            case "add column with many values":
                return sql.SQL("alter table {} add {} int default (random() * 1000)::int").format(
                    table.sql, fresh
                )
            case "drop column" if own or (free and len(table.columns) > 4):
                gone = sql.Identifier(chance.choice(own or free))
                return sql.SQL("alter table {} drop {}").format(table.sql, gone)
            case "alter type" if free:
                name = chance.choice(free)
                using = {
                    "int4": "bigint",
                    "text": "varchar using {} || '.'",
                    "numeric": "numeric(30, 4)",
                    "date": "text",
                    "bool": "text using {}::text",
                }.get(table.columns[name])
                return using and sql.SQL("alter table {} alter {} type " + using).format(
                    table.sql, sql.Identifier(name), sql.Identifier(name)
                )  # type: ignore[return-value]
            case "new label":
                return sql.SQL("alter type app.mood add value {}").format(
                    sql.Literal(f"label {number}")
                )
            case "new table":
                to = chance.choice([t for t in self.tables if t.key == ["id"]] or self.tables)
                reference = (
                    sql.SQL(", of {} references {} on delete set null").format(
                        sql.SQL("int" if to.columns["id"] == "int4" else "bigint"), to.sql
                    )
                    if to.key == ["id"] and to.columns["id"] in ("int4", "int8")
                    else sql.SQL("")
                )
                return sql.SQL(
                    "create table {} (id int primary key, name text, mood app.mood{})"
                ).format(sql.Identifier("app", f"made {number}"), reference)
            case "drop table":
                made = [t for t in self.tables if t.name.startswith("made")]
                referred = {to for t in self.tables for to, *_ in t.references}
                gone_tables = [t for t in made if t.name not in referred]
                if not gone_tables:
                    return None
                return sql.SQL("drop table {}").format(chance.choice(gone_tables).sql)
            case "detach":
                return self._partition(attached=True)
            case "attach":
                return self._partition(attached=False)
        return None

    def _partition(self, *, attached: bool) -> sql.Composed | None:
        """The northern one leaves or comes back."""
        row = self.conn.execute(
            "select c.relname::text, coalesce(p.relname, (select relname from pg_class "
            "where relkind = 'p' and relnamespace = 'app'::regnamespace and not relispartition"
            "))::text, c.relispartition from pg_class c "
            "left join pg_inherits i on i.inhrelid = c.oid "
            "left join pg_class p on p.oid = i.inhparent "
            "where c.relnamespace = 'app'::regnamespace and c.relkind = 'r' "
            "and c.relname like 'events_north%%'"
        ).fetchone()
        if row is None or row[2] != attached:
            return None
        part, above = sql.Identifier("app", row[0]), sql.Identifier("app", row[1])
        if attached:
            return sql.SQL("alter table {} detach partition {}").format(above, part)
        return sql.SQL("alter table {} attach partition {} for values in ('north')").format(
            above, part
        )


KINDS: Final = (
    "rename table",
    "rename column",
    "rename key column",
    "add column",
    "add column",
    "add column with a default",
    "add column with many values",
    "drop column",
    "alter type",
    "new label",
    "new table",
    "drop table",
    "detach",
    "attach",
)


def _names(names: Any) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
