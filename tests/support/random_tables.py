"""Random tables, and what is done with their rows, as SQL.

The tables' own triggers write each row before and after into a log table as the row that it is:
the truth with which what comes out of the history is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import psycopg
from hypothesis import strategies as st
from psycopg import sql

from tests.support.kinds import Kind, Value, array_of

Operation = Literal["insert", "update", "delete"]

SCHEMAS: Final = ("app", "app \U0001f418")
LOG: Final = "log"
_NAME_BYTES: Final = 63

_NAMES: Final = (
    "select",
    "table",
    "user",
    "order",
    "Upper Case",
    'quo"te',
    "it's",
    "back\\slash",
    "a.b",
    "%s %I",
    "{}",
    ":colon",
    "text:a",
    "json_null:a",
    "unchanged:a",
    "$1",
    "new\nline",
    " ",
    "\U0001f418\u00e9",
    "x" * _NAME_BYTES,
    "\u00e9" * 31 + "x",
    "\U0001f418" * 15,
    "id",
    "before",
    "after",
    "flags",
)
_SYSTEM_COLUMNS: Final = frozenset({"tableoid", "cmax", "xmax", "cmin", "xmin", "ctid"})
_PLACES: Final = frozenset({"number", "part", "generated"})


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind


@dataclass(frozen=True)
class Change:
    """Something done with the row of this number. `values`: of the columns that are set."""

    operation: Operation
    number: int
    values: dict[int, Value]
    part: Value | None = None
    new_number: int | None = None


@dataclass(frozen=True)
class Table:
    """A table with a column `number`, which tells its rows apart, and random others.

    `part` is the type of the key's second column, where it has one.
    """

    schema: str
    name: str
    log: str
    columns: tuple[Column, ...]
    full: bool
    """Its replica identity is FULL, not DEFAULT."""
    keyed: bool
    generation: Literal["", "by default", "always"]
    part: Kind | None
    generated: str | None
    changes: tuple[Change, ...]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def log_identifier(self) -> sql.Identifier:
        return sql.Identifier(LOG, self.log)

    @property
    def names(self) -> list[str]:
        """All columns that come through the stream."""
        part = ["part"] if self.part is not None else []
        return ["number", *part, *(column.name for column in self.columns)]


_CHARACTERS: Final = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_ALL_NAMES: Final = (
    st.sampled_from(_NAMES) | st.text(_CHARACTERS, min_size=1, max_size=_NAME_BYTES)
).map(lambda text: text.encode()[:_NAME_BYTES].decode(errors="ignore"))


@st.composite
def tables(
    draw: st.DrawFn,
    wanted: Sequence[Kind],
    kinds: Sequence[Kind],
    keys: Sequence[Kind],
    *,
    arrays: bool,
) -> Table:
    """A table with a column of each wanted kind, or of its arrays, and others of any kind.

    `keys` are the kinds that a key may have.
    """
    columns: list[Column] = []
    taken = set(_PLACES | _SYSTEM_COLUMNS)
    others = draw(st.lists(st.sampled_from(kinds), max_size=2))
    chosen = [(kind, arrays) for kind in wanted] + [(kind, draw(st.booleans())) for kind in others]
    for kind, is_array in chosen:
        name = draw(_ALL_NAMES.filter(lambda name: name not in taken))
        taken.add(name)
        columns.append(Column(name, array_of(kind) if is_array else kind))
    keyed = draw(st.integers(0, 4)) > 0
    part = draw(st.none() | st.none() | st.sampled_from(keys)) if keyed else None
    table = Table(
        schema=draw(st.sampled_from(SCHEMAS)),
        name=draw(_ALL_NAMES),
        log="",
        columns=tuple(columns),
        full=not keyed or draw(st.booleans()),
        keyed=keyed,
        generation=draw(st.sampled_from(["", "by default", "always"])),
        part=part,
        generated=draw(st.none() | st.sampled_from(_GENERATED)),
        changes=(),
    )
    changes = draw(_changes(table))
    return replace(table, changes=changes)


def numbered(table: Table, number: int) -> Table:
    """With a name that no table of another number has."""
    name = f"{number}{table.name}".encode()[:_NAME_BYTES].decode(errors="ignore")
    return replace(table, name=name, log=f"log_{number}")


_GENERATED: Final = (
    "text generated always as (repeat(number::text, 3)) stored",
    "int[] generated always as (array[number, null]) stored",
    "jsonb generated always as (number::text::jsonb) stored",
    "app.d_text generated always as ('no. ' || number::text) stored",
)


@st.composite
def _changes(draw: st.DrawFn, table: Table) -> tuple[Change, ...]:
    changes: list[Change] = []
    numbers: list[int] = []
    last = 0
    for step in range(draw(st.integers(6, 14))):
        choice = 0 if step < 2 or not numbers else draw(st.integers(0, 9))
        if choice <= 2:
            last += 1
            numbers.append(last)
            values = {at: draw(column.kind.values) for at, column in enumerate(table.columns)}
            part = _part(draw, table)
            changes.append(Change("insert", last, values, part))
            continue
        at = draw(st.integers(0, len(numbers) - 1))
        if choice == 3:
            changes.append(Change("delete", numbers.pop(at), {}))
            continue
        number, new_number, part = numbers[at], None, None
        if choice == 4 and table.generation != "always":
            last += 1
            new_number = numbers[at] = last
            part = _part(draw, table)
        places = range(len(table.columns))
        chosen = draw(st.sets(st.sampled_from(places), max_size=3))
        values = {place: draw(table.columns[place].kind.values) for place in sorted(chosen)}
        changes.append(Change("update", number, values, part, new_number))
    return tuple(changes)


def _part(draw: st.DrawFn, table: Table) -> Value | None:
    if table.part is None:
        return None
    text = draw(st.sampled_from(table.part.limits) | table.part.others)
    return Value(text, "random")


def create(table: Table) -> list[sql.Composed]:
    """The statements that make the table, its log and the trigger between them."""
    generated = f" generated {table.generation} as identity" if table.generation else ""
    number = sql.SQL(f"number bigint not null{generated}")
    parts: list[sql.Composable] = [
        number,
        *(
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.kind.sql))
            for column in table.columns
        ),
    ]
    if table.part is not None:
        parts.append(sql.SQL("part {}").format(sql.SQL(table.part.sql)))
    if table.generated is not None:
        parts.insert(1, sql.SQL("generated ") + sql.SQL(table.generated))
    if table.keyed:
        key = "number, part" if table.part is not None else "number"
        parts.append(sql.SQL(f"primary key ({key})"))
    statements = [
        sql.SQL("create table {} ({})").format(table.identifier, sql.SQL(", ").join(parts)),
        sql.SQL(
            "create table {} (n bigint generated always as identity, op text, old {}, new {})"
        ).format(table.log_identifier, table.identifier, table.identifier),
        sql.SQL(
            "create trigger log after insert or update or delete on {} "
            "for each row execute function log.record({})"
        ).format(table.identifier, sql.Literal(table.log)),
    ]
    if table.full:
        statements.append(sql.SQL("alter table {} replica identity full").format(table.identifier))
    return statements


RECORD: Final = """
create function log.record() returns trigger language plpgsql as $$
begin
    case tg_op
    when 'INSERT' then
        execute format('insert into log.%I (op, new) values ($1, $2)', tg_argv[0])
            using 'CREATE', new;
    when 'UPDATE' then
        execute format('insert into log.%I (op, old, new) values ($1, $2, $3)', tg_argv[0])
            using tg_op, old, new;
    when 'DELETE' then
        execute format('insert into log.%I (op, old) values ($1, $2)', tg_argv[0])
            using tg_op, old;
    end case;
    return null;
end
$$;
"""


def statement(table: Table, change: Change) -> tuple[sql.Composed, list[str | int | None]]:
    """The change as SQL with its parameters, which are text that PostgreSQL reads."""
    name = _identifier(table.schema, table.name)
    names = [table.columns[at].name for at in change.values]
    given: list[str | int | None] = [value.text for value in change.values.values()]
    if change.part is not None:
        names.append("part")
        given.append(change.part.text)
    columns = [_identifier(name) for name in names]
    where = sql.SQL(" where number = {}").format(sql.Placeholder())
    if change.operation == "delete":
        return sql.SQL("delete from {}").format(name) + where, [change.number]
    if change.operation == "insert":
        return (
            sql.SQL("insert into {} ({}) overriding system value values ({})").format(
                name,
                sql.SQL(", ").join([_identifier("number"), *columns]),
                sql.SQL(", ").join(sql.Placeholder() * (len(columns) + 1)),
            ),
            [change.number, *given],
        )
    if change.new_number is not None:
        columns.append(_identifier("number"))
        given.append(change.new_number)
    sets = [sql.SQL("{} = {}").format(column, sql.Placeholder()) for column in columns]
    if not sets:  # an update that changes nothing
        first = _identifier(table.columns[0].name)
        sets = [sql.SQL("{} = {}").format(first, first)]
    update = sql.SQL("update {} set {}").format(name, sql.SQL(", ").join(sets))
    return update + where, [*given, change.number]


def _identifier(*names: str) -> sql.Identifier:
    """For a statement with parameters, in which psycopg takes every % for one of them."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def run(conn: psycopg.Connection[object], made: Sequence[Table]) -> None:
    """All changes, in their order within each table; the tables by turns, some in one commit."""
    longest = max(len(table.changes) for table in made)
    with conn.pipeline():
        for step in range(longest):
            for at, table in enumerate(made):
                if step < len(table.changes):
                    conn.execute(*statement(table, table.changes[step]))
                if at % 40 == 39:
                    conn.commit()
            conn.commit()
