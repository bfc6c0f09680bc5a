"""Makes types and tables again as they are defined in the history, in an order that works.

What the target can't have is left out and told: a type that it lacks becomes text. Everything is
done in the one transaction of the target's connection that its caller has begun.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.connections import first_line
from bemi.errors import BemiError, UsageError
from bemi.history.declaring import options, type_statement
from bemi.history.defined_types import DefinedTypes
from bemi.history.respelling import Name, quoted, respelled
from bemi.store.definitions import Definition

# The first relation or type that has one of the names, or that is in the schema at all.
_THERE: Final[LiteralString] = """
select schema || '.' || name from (
    select n.nspname as schema, c.relname as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    union all
    select n.nspname, t.typname
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where t.typtype in ('e', 'd', 'r')
) each
where case when %(into)s::text is null
    then (schema, name) in (select * from unnest(%(schemas)s::text[], %(names)s::text[]))
    else schema = %(into)s end
order by schema, name limit 1
"""


class LeftOut(msgspec.Struct, frozen=True):
    """What is not in the target as it was in the source, and why."""

    table: str | None
    what: str
    why: str


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str
    """As it is spelled in the target."""
    generated: bool


class Made(msgspec.Struct):
    """A table in the target. `table`: as the history calls it."""

    table: str
    name: Name
    definition: Mapping[str, Any]
    columns: list[Column]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(*self.name)


class Rebuilding:
    """Of the tables `wanted`, by their OIDs, among all that was defined then."""

    def __init__(
        self,
        target: psycopg.Connection[Any],
        defined: Mapping[tuple[str, int], Definition],
        wanted: Sequence[int],
        into: str | None,
    ) -> None:
        """`into`: the schema for all of it; None: those that it was in."""
        self._target = target
        self._types = DefinedTypes(defined)
        self._wanted = {oid: defined["table", oid] for oid in wanted}
        self._into = into
        self._names: dict[Name, Name] = {}
        self._made: dict[int, Made] = {}
        self._under_way: set[tuple[str, int]] = set()
        self._done: set[int] = set()
        self.left_out: list[LeftOut] = []
        self.types: list[str] = []
        """Made, as the source called them."""

    def make(self) -> list[Made]:
        """All tables, without keys and constraints. Raises `UsageError` for a target that is not
        free for them."""
        self._require_free()
        for oid in self._wanted:
            self._table(oid)
        return [self._made[oid] for oid in self._wanted]

    def finish(self, made: Made, unknown: Mapping[str, int]) -> None:
        """What belongs to the table alone, once its rows are there: keys, checks, defaults.

        `unknown`: how many of its rows lack a value, by column.
        """
        self._columns(made, unknown)
        for each in made.definition["constraints"]:
            if each["kind"] != "f":
                self._constraint(made, each)
        for each in made.definition["indexes"]:
            definition = respelled(each["definition"], self._names)
            self._try(made, f"unique index {each['name']}", _sql(definition))

    def connect(self, made: Made) -> None:
        """The foreign keys, once all tables have their rows and keys."""
        for each in made.definition["constraints"]:
            if each["kind"] != "f":
                continue
            if each["references"] not in self._wanted:
                self._leave_out(
                    made.table,
                    f"foreign key {each['name']}",
                    f"it refers to a table that is not restored: {each['definition']}",
                )
                continue
            self._constraint(made, each)

    def _require_free(self) -> None:
        names: dict[Name, str] = {}
        for each in (*self._wanted.values(), *self._types.needed(self._wanted)):
            name = (self._into or each.schema, each.name)
            known = f"{each.schema}.{each.name}"
            if name in names and names[name] != known:
                raise UsageError(
                    f"{known} and {names[name]} would both be {'.'.join(name)}",
                    fix="restore into another database, where they keep their schemas, or give"
                    " one of them with --table",
                )
            names[name] = known
            self._names[each.schema, each.name] = name
            if each.kind == "range" and (multirange := (each.definition or {})["multirange"]):
                self._names[each.schema, multirange] = (name[0], multirange)
        for schema in sorted({schema for schema, _ in names}):
            row = self._target.execute(
                "select to_regnamespace(quote_ident(%s)) is not null", [schema]
            ).fetchone()
            if row is not None and not row[0]:
                self._run(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        there = self._target.execute(
            _THERE,
            {
                "into": self._into,
                "schemas": [schema for schema, _ in names],
                "names": [name for _, name in names],
            },
        ).fetchone()
        if there is None:
            return
        if self._into is not None:
            raise UsageError(
                f"the schema {self._into} is not empty: it has {there[0]}",
                fix="name a schema that there is not, or one without anything in it",
            )
        raise UsageError(
            f"the database that was to restore into has {there[0]} already",
            fix="restore into an empty database, or into a schema of the destination, and copy"
            " the rows from there",
        )

    def _need(self, oid: int | None) -> None:
        """A type that is to be there."""
        each = self._types.get(oid)
        if each is None:
            return
        assert each.definition is not None
        relation = each.definition.get("relation")
        if relation in self._wanted:
            self._table(relation)
        elif (each.schema, each.name) in self._names and each.oid not in self._done:
            if ("type", each.oid) in self._under_way:
                return
            self._under_way.add(("type", each.oid))
            for part in self._types.parts(each):
                self._need(part)
            self._done.add(each.oid)
            self._type(each)

    def _type(self, each: Definition) -> None:
        known = f"{each.schema}.{each.name}"
        name = quoted(*self._names[each.schema, each.name])
        why = self._failing(f"create {type_statement(each, name, self._names)}")
        if why is None:
            self.types.append(known)
        else:
            self._leave_out(None, f"type {known}", why)

    def _table(self, oid: int) -> None:
        if oid in self._made:
            return
        each = self._wanted[oid]
        known = f"{each.schema}.{each.name}"
        if ("table", oid) in self._under_way:
            raise BemiError(
                f"{known} has a column whose type is made of its own rows",
                fix="such a table can't be restored",
            )
        self._under_way.add(("table", oid))
        assert each.definition is not None
        for column in each.definition["columns"]:
            self._need(column["type_oid"])
            self._need(column["element_oid"])
        if each.definition["kind"] == "p":
            self._leave_out(known, "partitions", "all rows are in one table")
        name = self._names[each.schema, each.name]
        columns, texts = self._declared(known, each.definition["columns"])
        why = self._failing(f"create table {quoted(*name)} ({', '.join(texts)})")
        if why is not None:
            # An expression that the target can't have, most likely.
            for column in each.definition["columns"]:
                if column["generated"]:
                    self._leave_out(
                        known, f"generated column {column['name']}: its expression", why
                    )
            columns, texts = self._declared(known, each.definition["columns"], plain=True)
            why = self._failing(f"create table {quoted(*name)} ({', '.join(texts)})")
            if why is not None:
                raise BemiError(
                    f"{known} can't be made: {why}", fix="leave it out: name others with --table"
                )
        self._made[oid] = Made(known, name, each.definition, columns)

    def _declared(
        self, table: str, columns: Sequence[Mapping[str, Any]], *, plain: bool = False
    ) -> tuple[list[Column], list[str]]:
        found, texts = [], []
        for each in columns:
            spelled = respelled(each["type"], self._names)
            is_generated = bool(each["generated"]) and not plain
            lacking = not self._has("to_regtype", spelled)
            if lacking:
                spelled = "text"
                told = f"column {each['name']}: its type {each['type']}"
                if not plain:
                    self._leave_out(table, told, "there is none here; its values are text")
            text = f"{quoted(each['name'])} {spelled}"
            if (
                each["collation"]
                and not lacking
                and self._has("to_regcollation", each["collation"])
            ):
                text += f" collate {each['collation']}"
            elif each["collation"] and not plain:
                self._leave_out(table, f"column {each['name']}: collation", "there is none here")
            if is_generated:
                kind = "virtual" if each["generated"] == "v" else "stored"
                expression = respelled(each["default"], self._names)
                text += f" generated always as ({expression}) {kind}"
            found.append(Column(each["name"], spelled, is_generated))
            texts.append(text)
        return found, texts

    def _columns(self, made: Made, unknown: Mapping[str, int]) -> None:
        for each, column in zip(made.definition["columns"], made.columns, strict=True):
            name = each["name"]
            alter = sql.SQL("alter table {} alter column {} ").format(
                made.identifier, sql.Identifier(name)
            )
            if each["not_null"] and unknown.get(name):
                self._leave_out(
                    made.table,
                    f"column {name}: {'identity' if each['identity'] else 'not null'}",
                    f"{unknown[name]} of its values are not known",
                )
            elif each["not_null"]:
                self._try(made, f"column {name}: not null", alter + sql.SQL("set not null"))
                if each["identity"]:
                    kind = "always" if each["identity"] == "a" else "by default"
                    identity = f"add generated {kind} as identity ({options(each['sequence'])})"
                    self._try(made, f"column {name}: identity", alter + _sql(identity))
            if each["sequence"] is not None and not each["identity"]:
                self._serial(made, each, alter)
            elif each["default"] is not None and not each["generated"]:
                default = respelled(each["default"], self._names)
                self._try(made, f"column {name}: default", alter + _sql(f"set default {default}"))
            if each["sequence"] is not None and not column.generated:
                self._behind_the_largest(made, each)

    def _serial(self, made: Made, each: Mapping[str, Any], alter: sql.Composed) -> None:
        sequence = each["sequence"]
        name = quoted(self._into or sequence["schema"], sequence["name"])
        what = f"column {each['name']}: sequence {sequence['name']}"
        owner = quoted(*made.name, each["name"])
        why = self._failing(
            f"create sequence {name} as {sequence['type']} {options(sequence)} owned by {owner}"
        )
        if why is not None:
            self._leave_out(made.table, what, why)
            return
        if (each["default"] or "").startswith("nextval("):
            default = sql.SQL("set default nextval({}::regclass)").format(sql.Literal(name))
            self._try(made, what, alter + default)

    def _behind_the_largest(self, made: Made, each: Mapping[str, Any]) -> None:
        up = each["sequence"]["increment"] > 0
        with suppress(psycopg.Error), self._target.transaction():
            self._target.execute(
                sql.SQL(
                    "select setval(pg_get_serial_sequence({table}, {name}), {far}({column}))"
                    " from {of} having {far}({column}) {beyond} {start}"
                ).format(
                    table=sql.Literal(quoted(*made.name)),
                    name=sql.Literal(each["name"]),
                    far=sql.SQL("max" if up else "min"),
                    beyond=sql.SQL(">=" if up else "<="),
                    start=sql.Literal(each["sequence"]["start"]),
                    column=sql.Identifier(each["name"]),
                    of=made.identifier,
                )
            )

    def _constraint(self, made: Made, each: Mapping[str, Any]) -> None:
        kind = {"p": "primary key", "u": "unique", "f": "foreign key", "c": "check"}
        definition = respelled(each["definition"], self._names)
        self._try(
            made,
            f"{kind.get(each['kind'], 'constraint')} {each['name']}",
            sql.SQL("alter table {} add constraint {} ").format(
                made.identifier, sql.Identifier(each["name"])
            )
            + _sql(definition),
        )

    def _try(self, made: Made, what: str, statement: sql.SQL | sql.Composed) -> None:
        why = self._failing(statement)
        if why is not None:
            self._leave_out(made.table, what, why)

    def _leave_out(self, table: str | None, what: str, why: str) -> None:
        self.left_out.append(LeftOut(table, what, why))

    def _failing(self, statement: str | sql.SQL | sql.Composed) -> str | None:
        """Why it can't be done, where it can't."""
        try:
            with self._target.transaction():
                self._run(_sql(statement) if isinstance(statement, str) else statement)
        except psycopg.Error as error:
            if error.sqlstate is None or self._target.closed:
                raise
            return first_line(error)
        return None

    def _run(self, statement: sql.SQL | sql.Composed) -> None:
        # Without parameters, which a `%` in a name would be taken for.
        self._target.execute(statement)

    def _has(self, function: str, name: str) -> bool:
        found = None
        with suppress(psycopg.Error), self._target.transaction():
            found = self._target.execute(
                sql.SQL("select {}({})").format(sql.Identifier(function), sql.Literal(name))
            ).fetchone()
        return found is not None and found[0] is not None


def _sql(text: str) -> sql.SQL:
    """SQL as the source's own catalog spelled it."""
    return sql.SQL(text)
