"""Transactions written down as statements that say the same in another run, and their re-run.

Each operation names its rows by their keys and sets fields to values that were chosen before, so
what the database would be if some of them had never been is well defined: a re-run without them,
of the same rows, whatever their keys are in it. Triggers write down what each operation did to
which row, and rows have an identity that is no key, in a copy that nobody tracks.
"""

import json
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import psycopg
from psycopg import sql

from tests.support.random_work import RandomWork, Table

Connection = psycopg.Connection[Any]
Contents = Mapping[str, Counter[str]]
Record = tuple[str, tuple[str, ...]]
"""A table and a key, as texts."""

KEYLESS: Final = {"log_lines": "text", "badges": "label"}
"""Tables without a key, and the column that names their rows, of which many may be equal: what is
done is done to all that have a name, and never to the name."""

BADGES: Final = """
create table app.badges (
    label text, person int references app.people on delete cascade, n int, at date
);
alter table app.badges replica identity full;
insert into app.badges
select 'badge ' || (g % 4), 1 + g % 9, g % 3, '2026-05-01' from generate_series(1, 12) g;
"""

TRIGGERS: Final = """
create schema oracle;
create function oracle.name() returns trigger language plpgsql as $$
begin  -- A row that goes to another partition keeps what it has.
    if new.oracle_id is null then
        perform set_config('oracle.rows', (current_setting('oracle.rows')::int + 1)::text, true);
        new.oracle_id := current_setting('oracle.op') || '#' || current_setting('oracle.rows');
    end if;
    return new;
end $$;
create table oracle.effects (
    number int generated always as identity, op text, tbl text, was jsonb, came jsonb
);
create function oracle.note() returns trigger language plpgsql as $$
declare of_table text := case when tg_table_name ~ '^events' then 'events' else tg_table_name end;
begin
    insert into oracle.effects (op, tbl, was, came)
    values (current_setting('oracle.op'), of_table,
        case when tg_op <> 'INSERT' then to_jsonb(old) - 'oracle_id' end,
        case when tg_op <> 'DELETE' then to_jsonb(new) - 'oracle_id' end);
    return null;
end $$;
create function oracle.note_truncate() returns trigger language plpgsql as $$
begin
    execute format('insert into oracle.effects (op, tbl, was) '
        'select current_setting(''oracle.op''), %L, to_jsonb(t) - ''oracle_id'' from app.%I t',
        tg_table_name, tg_table_name);
    return null;
end $$;
do $$ declare t regclass; begin
    for t in select oid from pg_class where relnamespace = 'app'::regnamespace
        and relkind in ('r', 'p') and not relispartition
    loop
        execute format('alter table %s add column oracle_id text default gen_random_uuid()', t);
        execute format('alter table %s alter column oracle_id drop default', t);
        execute format('create trigger name before insert on %s '
            'for each row execute function oracle.name()', t);
        execute format('create trigger note after insert or update or delete on %s '
            'for each row execute function oracle.note()', t);
        if (select relkind from pg_class where oid = t) = 'r' then
            execute format('create trigger note_truncate before truncate on %s '
                'for each statement execute function oracle.note_truncate()', t);
        end if;
    end loop;
end $$;
"""


@dataclass(frozen=True)
class Operation:
    kind: Literal["insert", "upsert", "update", "delete", "truncate"]
    table: str
    key: tuple[str, ...]
    """The columns that name its rows."""
    rows: tuple[tuple[Any, ...], ...]
    """Their names."""
    values: Mapping[str, Any] = field(default_factory=dict)
    ids: Mapping[tuple[Any, ...], Sequence[str]] = field(default_factory=dict)
    """What had these names, in the copy."""

    def statement(self, *, by_id: bool = False) -> tuple[sql.Composed, list[Any]]:
        """`by_id`: of the rows that had the names when it was made up."""
        table = sql.Identifier("app", self.table)
        if self.kind == "truncate":
            return sql.SQL("truncate {}").format(table), []
        if self.kind in ("insert", "upsert"):
            statement = sql.SQL("insert into {} ({}) values ({})").format(
                table,
                _names(self.values),
                sql.SQL(", ").join(sql.Placeholder() * len(self.values)),
            )
            if self.kind == "upsert":
                statement += sql.SQL(" on conflict ({}) do update set {}").format(
                    _names(self.key),
                    sql.SQL(", ").join(
                        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
                        for name in self.values
                        if name not in self.key
                    ),
                )
            return statement, [*self.values.values()]
        where = sql.SQL("({}) in ({})").format(
            _names(self.key),
            sql.SQL(", ").join(
                sql.SQL("({})").format(sql.SQL(", ").join(sql.Placeholder() * len(row)))
                for row in self.rows
            ),
        )
        given = [value for row in self.rows for value in row]
        if by_id:
            where = sql.SQL("oracle_id = any(%s)").format()
            given = [[each for row in self.rows for each in self.ids[row]]]
        if self.kind == "delete":
            return sql.SQL("delete from {} where {}").format(table, where), given
        sets = sql.SQL(", ").join(
            sql.SQL("{} = %s").format(sql.Identifier(name)) for name in self.values
        )
        return (
            sql.SQL("update {} set {} where {}").format(table, sets, where),
            [*self.values.values(), *given],
        )


@dataclass
class Transaction:
    number: int
    user: int
    request: str
    operations: list[Operation]
    xid: int = 0
    """On the source."""

    def name(self, at: int) -> str:
        return f"{self.number}/{at}"


@dataclass(frozen=True)
class Effect:
    """What an operation did to a row: both images, or None."""

    table: str
    was: Mapping[str, Any] | None
    came: Mapping[str, Any] | None

    def records(self, key: Sequence[str]) -> set[Record]:
        return {
            (self.table, tuple(str(image[name]) for name in key))
            for image in (self.was, self.came)
            if image is not None
        }

    def essence(self, sets: Collection[str]) -> str:
        """What has to be the same for the effect to be the same."""
        if self.was is None or self.came is None:
            return json.dumps([self.table, self.was, self.came], sort_keys=True)
        fields = {
            name: [value, self.came[name]]
            for name, value in self.was.items()
            if value != self.came[name] or name in sets
        }
        return json.dumps([self.table, fields], sort_keys=True)


@dataclass
class Outcome:
    """Of a run: what each operation did, those that failed, and what there is in the end."""

    effects: dict[str, list[Effect]]
    failed: dict[str, str]
    contents: Contents


class LoggedWork:
    """Makes transactions up, and runs them, in a copy of the database that gets `TRIGGERS`."""

    def __init__(self, conn: Connection, chance: random.Random) -> None:
        self._conn = conn
        self._chance = chance
        self._random = RandomWork(conn, chance)
        conn.execute(TRIGGERS.encode())
        self.keys = {
            table.name: tuple(table.key) or (KEYLESS[table.name],)
            for table in self._random.tables
            if table.key or table.name in KEYLESS
        }
        self.transactions: list[Transaction] = []

    def make_up(self, number: int, *, users: int) -> None:
        """So many further transactions, behind those that there are."""
        requests = 0
        with self._undone():
            for each in self.transactions:
                self._run(each, each.operations, {})
            while number > 0:
                requests += 1
                user = self._chance.randrange(users)
                for _ in range(self._chance.choice([1, 1, 2])):
                    transaction = Transaction(
                        len(self.transactions), user, f"r{number}-{requests}", []
                    )
                    with self._conn.transaction():
                        for _ in range(self._chance.choice([1, 1, 2, 3])):
                            self._try(transaction)
                        self._conn.execute("set constraints all immediate")
                        self._conn.execute("set constraints all deferred")
                    if transaction.operations:
                        self.transactions.append(transaction)
                        number -= 1

    def run(
        self, without: Mapping[str, Collection[tuple[Any, ...]] | None] | None = None
    ) -> Outcome:
        """All over again, but for some operations, or for some rows of them."""
        left_out = without or {}
        with self._undone():
            failed: dict[str, str] = {}
            for transaction in self.transactions:
                operations: list[Operation | None] = []
                for at, operation in enumerate(transaction.operations):
                    rows = left_out.get(transaction.name(at), ())
                    kept = tuple(row for row in operation.rows if rows is None or row not in rows)
                    if rows is None or (operation.rows and not kept):
                        operations.append(None)
                    else:
                        operations.append(replace(operation, rows=kept))
                self._run(transaction, operations, failed)
            effects: dict[str, list[Effect]] = {}
            for name, table, was, came in self._conn.execute(
                "select op, tbl, was, came from oracle.effects order by number"
            ):
                effects.setdefault(name, []).append(Effect(table, was, came))
            return Outcome(effects, failed, contents(self._conn))

    @contextmanager
    def _undone(self) -> Iterator[None]:
        with self._conn.transaction(force_rollback=True):
            yield

    def _run(
        self,
        transaction: Transaction,
        operations: Sequence[Operation | None],
        failed: dict[str, str],
    ) -> None:
        try:
            with self._conn.transaction():
                for at, operation in enumerate(operations):
                    if operation is None:
                        continue
                    try:
                        with self._conn.transaction():
                            self._do(transaction.name(at), operation)
                    except psycopg.IntegrityError as error:
                        failed[transaction.name(at)] = str(error)
                self._conn.execute("set constraints all immediate")
                self._conn.execute("set constraints all deferred")
        except psycopg.IntegrityError as error:
            failed[transaction.name(-1)] = str(error)

    def _do(self, name: str, operation: Operation) -> None:
        self._conn.execute(
            "select set_config('oracle.op', %s, true), set_config('oracle.rows', '0', true)", [name]
        )
        if operation.kind == "upsert" and any(operation.ids.values()):
            # It was an update. Where its row is gone, it is one of whatever has the key by now.
            given = {
                name: operation.values[name]
                for name in operation.values
                if name not in operation.key
            }
            updating = replace(operation, kind="update", values=given)
            if self._conn.execute(*updating.statement(by_id=True)).rowcount:
                return
        self._conn.execute(*operation.statement(by_id=operation.kind in ("update", "delete")))

    def _with_ids(self, operation: Operation) -> Operation:
        """With the identities of the rows that have these names now."""
        if operation.kind in ("insert", "truncate"):
            return operation
        query = sql.SQL("select oracle_id from {} where ({}) = ({})").format(
            sql.Identifier("app", operation.table),
            _names(operation.key),
            sql.SQL(", ").join(sql.Placeholder() * len(operation.key)),
        )
        return replace(
            operation,
            ids={
                row: [found for (found,) in self._conn.execute(query, row)]
                for row in operation.rows
            },
        )

    def _try(self, transaction: Transaction) -> None:
        """Add an operation that does something, and sets nothing to what it is already."""
        operation = self._operation()
        if operation is None:
            return
        operation = self._with_ids(operation)
        name = transaction.name(len(transaction.operations))
        try:
            with self._conn.transaction():
                self._do(name, operation)
                # Whoever sets a field to what it is leaves nothing in any history.
                idle = self._conn.execute(
                    "select count(*) = 0 or coalesce(bool_or(was is not null and came is not null"
                    " and exists (select from unnest(%s::text[]) c where was -> c = came -> c)"
                    "), false) from oracle.effects where op = %s",
                    [list(operation.values) if operation.kind != "insert" else [], name],
                ).fetchone()
                if idle == (True,):
                    raise psycopg.Rollback
                transaction.operations.append(operation)
                self._conn.execute("set constraints all immediate")
                self._conn.execute("set constraints all deferred")
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.ProgramLimitExceeded):
            if transaction.operations and transaction.operations[-1] is operation:
                transaction.operations.pop()

    def _operation(self) -> Operation | None:
        chance, work = self._chance, self._random
        kind = chance.choices(
            ["insert", "update", "update several", "move", "upsert", "delete", "truncate"],
            [25, 50, 8, 5, 4, 10, 0.3],
        )[0]
        tables = [table for table in work.tables if table.name in self.keys]
        if kind == "truncate":
            return Operation("truncate", chance.choice(["settings", "task_labels"]), (), ())
        table = chance.choice(tables)
        if table.name in KEYLESS:
            return self._keyless(table, kind)
        key = tuple(table.key)
        row = work.row(table)
        if kind == "insert":
            return Operation("insert", table.name, key, (tuple(row[name] for name in key),), row)
        found = work.some_key(table)
        if found is None:
            return None
        if kind == "delete":
            return Operation("delete", table.name, key, (found,))
        if kind == "move":
            column = chance.choice(key)
            if column in table.referring:
                return None
            return Operation("update", table.name, key, (found,), {column: row[column]})
        return self._update(table, kind, row, found)

    def _keyless(self, table: Table, kind: str) -> Operation | None:
        """Few names and values, so that many rows are equal."""
        chance, key = self._chance, self.keys[table.name]
        name = f"{'line' if table.name == 'log_lines' else 'badge'} {chance.randrange(5)}"
        row = {
            **self._random.row(table),
            key[0]: name,
            "n": chance.randrange(3),
            "at": f"2026-05-0{chance.randint(1, 2)}",
        }
        match kind:
            case "insert" | "upsert":
                return Operation("insert", table.name, key, ((name,),), row)
            case "update" | "update several":
                column = chance.choice([each for each in row if each not in key])
                return Operation("update", table.name, key, ((name,),), {column: row[column]})
            case "delete":
                return Operation("delete", table.name, key, ((name,),))
        return None

    def _update(
        self, table: Table, kind: str, row: dict[str, Any], found: tuple[Any, ...]
    ) -> Operation | None:
        chance, key = self._chance, tuple(table.key)
        names = [name for name in table.columns if name not in key]
        if not names:
            return None
        chosen = chance.sample(names, min(chance.choice([1, 1, 2, 3]), len(names)))
        values = {name: row[name] for name in chosen}
        if kind == "upsert":
            given = {**dict(zip(key, found, strict=True)), **values}
            return Operation("upsert", table.name, key, (found,), given)
        rows = {found}
        if kind == "update several" and "email" not in values:
            rows |= {self._random.some_key(table) or found for _ in range(3)}
        return Operation("update", table.name, key, tuple(sorted(rows)), values)


def contents(conn: Connection) -> Contents:
    """The rows of all tables; JSON as what it says, since a history keeps no more of it."""
    return {
        name: Counter(
            row[0]
            for row in conn.execute(
                sql.SQL("select (to_jsonb({0}) - 'oracle_id')::text from {1} {0}").format(
                    sql.Identifier("t"), sql.Identifier("app", name)
                )
            )
        )
        for (name,) in conn.execute(
            "select relname::text from pg_class where relnamespace = 'app'::regnamespace"
            " and relkind in ('r', 'p') and not relispartition order by 1"
        ).fetchall()
    }


def differences(found: Contents, expected: Contents) -> list[str]:
    return [
        f"{name}: {kind} {row[:200]} × {count}"
        for name in expected
        for kind, rows in (
            ("missing", expected[name] - found[name]),
            ("extra", found[name] - expected[name]),
        )
        for row, count in rows.items()
    ]


def _names(names: Collection[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
