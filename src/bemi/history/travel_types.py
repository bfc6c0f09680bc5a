"""The types of a moment, made anew in the schemas of a travel, so that columns have them again.

Enums, domains and composite types come from the history's definitions. Domains are made without
their constraints: a value was checked when it was written, by the rules of then.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.history.respelling import quoted

_ARRAY: Final = re.compile(r"(.*?)((?:\[\])*)", re.DOTALL)
_FIRST_OWN: Final = 16384
"""OIDs below are PostgreSQL's own, and the same everywhere."""

_JSON: Final = ("json", "jsonb")
_SET: Final = ("money", "xml")
"""Types whose text is read by settings."""


class Type(msgspec.Struct, frozen=True):
    """A type of the destination. `base`: what a domain is made of in the end, itself else.

    `missing`: the destination lacks it, and it is text.
    """

    name: sql.Composable
    base: str
    missing: bool = False

    @property
    def is_json(self) -> bool:
        return self.base in _JSON

    @property
    def is_set(self) -> bool:
        return self.base in _SET


_TEXT: Final = Type(sql.SQL("pg_catalog.text"), "text", missing=True)


class Known(msgspec.Struct, frozen=True):
    """What the history knows of a type."""

    kind: str
    schema: str
    name: str
    definition: Mapping[str, Any]
    oid: int


_KNOWN: Final = sql.SQL(
    "select format('%%I.%%I', d.schema, d.name), case when to_regtype(format("
    "'pg_catalog.%%I', d.name)) is null then quote_ident(d.name) end, "
    "d.kind, d.schema, d.name, case when d.kind = 'enum' then d.definition || "
    "jsonb_build_object('labels', d.definition -> 'labels' || e.labels) else d.definition end, "
    "d.oid::bigint "
    "from {sources} s cross join lateral {definitions_at}(s.source_id, %(epoch)s::int, "
    "%(position)s::bigint) d "
    # Behind them, those that were called otherwise before: rows that were not written since.
    "left join lateral (select coalesce(jsonb_agg(distinct l), '[]') as labels "
    "from {definitions} e cross join lateral jsonb_array_elements(e.definition -> 'labels') l "
    "where d.kind = 'enum' and e.source = s.name and e.epoch = %(epoch)s and e.kind = 'enum' "
    "and e.oid = d.oid and e.from_position <= %(position)s "
    "and not d.definition -> 'labels' @> l) e on true "
    "where s.name = %(source)s and d.kind in ('enum', 'domain', 'composite', 'base') "
    # That of a table's rows would have the name of its view.
    "and d.definition ->> 'relation' is null "
    "order by d.schema = 'public'"
)


def read(
    conn: psycopg.Connection[Any], schema: str, source: str, epoch: int, position: int
) -> dict[str, Known]:
    """The types that a source had then, by their names as `format_type` spells them: with their
    schema, or without where that is in the search path."""
    rows = conn.execute(
        _KNOWN.format(
            sources=sql.Identifier(schema, "sources"),
            definitions_at=sql.Identifier(schema, "definitions_at"),
            definitions=sql.Identifier(schema, "definitions"),
        ),
        {"epoch": epoch, "position": int(position), "source": source},
    )
    found: dict[str, Known] = {}
    for spelled, unqualified, *rest in rows:
        found[spelled] = Known(*rest)
        if unqualified is not None:
            found[unqualified] = found[spelled]
    return found


def spelled(
    conn: psycopg.Connection[Any], known: Mapping[str, Known], column: Mapping[str, Any]
) -> str:
    """The type of a column of a version, by its OID where the catalog could not name it any more:
    `the type 16401`, which no destination has, where that tells nothing either."""
    if column["type"]:
        return str(column["type"])
    oid = column["type_oid"]
    name = next((name for name, each in known.items() if each.oid == oid), None)
    if name is None and oid < _FIRST_OWN:
        row = conn.execute(
            "select format_type(oid, %s) from pg_type where oid = %s",
            [column.get("modifier", -1), oid],
        )
        name = next((each[0] for each in row), None)
    return name or f"the type {oid}"


def used(known: Mapping[str, Known], text: str) -> set[str]:
    """The names of those that a type is made of, itself among them."""
    name, _ = _parts(text)
    if name not in known:
        return set()
    of = known[name]
    if of.kind == "base":
        return set()  # it is not made
    inner = [of.definition["type"]] if of.kind == "domain" else []
    if of.kind == "composite":
        inner = [each["type"] for each in of.definition["attributes"]]
    return {name}.union(*(used(known, each) for each in inner))


class Types:
    """Makes types when they are asked for. `target`: the schema that stands for one of the
    source's."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        known: Mapping[str, Known],
        target: Callable[[str], str],
    ) -> None:
        self._conn = conn
        self._known = known
        self._target = target
        self._made: dict[object, Type] = {}
        self.made: list[tuple[str, str]] = []
        """By schema and name."""

    def of(self, text: str) -> Type:
        """The type that `format_type` spelled so on the source."""
        name, brackets = _parts(text)
        known = self._known.get(name)
        called = name if known is None else (known.schema, known.name)
        made = self._made.get(called)
        if made is None:
            made = self._make(known) if known is not None else self._present(self._qualified(name))
            self._made[called] = made
        if not brackets or made.missing:
            return made
        return Type(sql.Composed([made.name, sql.SQL("[]")]), "array")

    def _qualified(self, name: str) -> str:
        """With its schema, one of an extension that has a modifier: `vector(3)`."""
        stem, _, modifier = name.partition("(")
        known = self._known.get(stem)
        if not modifier or known is None or known.kind != "base":
            return name
        return f"{quoted(known.schema, known.name)}({modifier}"

    def _make(self, of: Known) -> Type:
        if of.kind == "base":
            return self._present(quoted(of.schema, of.name))
        name = sql.Identifier(self._target(of.schema), of.name)
        base = ""
        if of.kind == "enum":
            labels = sql.SQL(", ").join(map(sql.Literal, of.definition["labels"]))
            statement = sql.SQL("create type {} as enum ({})").format(name, labels)
        elif of.kind == "domain":
            under = self.of(of.definition["type"])
            base = under.base
            statement = sql.SQL("create domain {} as {}").format(name, under.name)
        else:
            attributes = sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(each["name"]), self.of(each["type"]).name)
                for each in of.definition["attributes"]
            )
            statement = sql.SQL("create type {} as ({})").format(name, attributes)
        self._conn.execute(statement)
        self.made.append((self._target(of.schema), of.name))
        return Type(name, base)

    def _present(self, text: str) -> Type:
        """One that is there, by the name that it has on the source."""
        try:
            with self._conn.transaction():
                row = self._conn.execute(
                    "select t.oid::regtype::text, t.typbasetype::regtype::text"
                    " from pg_type t where t.oid = to_regtype(%s)",
                    [text],
                ).fetchone()
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError):
            row = None  # it can't even be read
        if row is None:
            return _TEXT
        name, base = row
        # The server has read it as the name of a type, and as nothing else.
        return Type(_Spelled(text), name if base == "-" else base)


class _Spelled(sql.Composable):
    """A type as the server spells it, which no identifier is: `character varying(20)`."""

    def as_bytes(self, context: object = None) -> bytes:  # noqa: ARG002 - psycopg's
        return str(self._obj).encode()


def _parts(text: str) -> tuple[str, str]:
    match = _ARRAY.fullmatch(text)
    assert match is not None
    return match[1], match[2]
