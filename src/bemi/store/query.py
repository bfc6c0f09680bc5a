"""Filters as SQL: a SELECT from the view `changes`, of which each condition can use an index where
there is one."""

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Final, Literal, LiteralString, TypeAlias

import msgspec
from psycopg import sql

from bemi.keys import digested
from bemi.store.filters import Filters

_OF_A_TRACE: Final = ("trace_id", "request_id")

# A number as jsonb prints it: never with an exponent.
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,99})(\.\d{1,99})?")


def compiled(
    schema: str, filters: Filters, columns: Iterable[str]
) -> tuple[sql.Composed, list[object]]:
    """A SELECT of the columns of the view `changes` that the filters let through, in their order.

    Names are quoted; values are parameters, which come with it.
    """
    conditions: list[sql.Composable] = []
    parameters: list[object] = []

    def require(condition: LiteralString, *values: object) -> None:
        conditions.append(sql.SQL(condition))
        parameters.extend(values)

    if filters.table is not None:
        before, dot, after = filters.table.partition(".")
        require('schema = %s and "table" = %s', *((before, after) if dot else ("public", before)))
    if filters.key is not None:
        key = stored_keys(filters.key)
        # An update that changed the key belongs to the history of both.
        require("(primary_key = any(%s) or previous_key = any(%s))", key, key)
    if filters.operation:
        require("operation = any(%s)", list(filters.operation))
    if filters.since is not None:
        require("committed_at >= %s", filters.since)
    if filters.until is not None:
        require("committed_at <= %s", filters.until)
    if filters.transaction is not None:
        require("transaction_id = %s", filters.transaction)
    if filters.source is not None:
        require("source = %s", filters.source)
    if filters.changed is not None:
        require(
            "operation = 'UPDATE' and before -> %s::text is distinct from after -> %s::text "
            "and not %s = any(coalesce(flags, '{}'))",
            filters.changed,
            filters.changed,
            f"unchanged:{filters.changed}",
        )
    if filters.trace is not None:
        require(*_any_of(_context_conditions(name, filters.trace) for name in _OF_A_TRACE))
    for column, value in filters.before:
        require(_column_is("before", value), *_column(column, value))
    for column, value in filters.after:
        require(_column_is("after", value), *_column(column, value))
    if filters.from_position is not None:
        require("commit_position >= %s", filters.from_position)
    if filters.to_position is not None:
        require("commit_position <= %s", filters.to_position)
    if filters.id is not None:
        # The index is that of the commit's position, which the id begins with.
        at = sql.SQL("commit_position = {}(%s)").format(sql.Identifier(schema, "commit_position"))
        conditions.append(at)
        parameters.append(filters.id)
        require("id = %s", filters.id)
    for path, value in filters.context:
        require(*_any_of([_context_conditions(path, value)]))
    # By time it is the order of the store's unique index, forwards or backwards.
    order: list[LiteralString] = ["committed_at", "commit_position", "ordinal", "epoch"]
    if filters.by_log:
        order = ["epoch", "commit_position", "ordinal"]
    if filters.behind is not None:
        beyond: LiteralString = ">" if filters.oldest_first else "<"
        places: LiteralString = ", ".join(["%s"] * len(order))
        require(
            f"({', '.join(order)}) {beyond} ({places})",
            *(getattr(filters.behind, column) for column in order),
        )
    query = sql.SQL("select {} from {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(schema, "changes")
    )
    if conditions:
        query += sql.SQL(" where {}").format(sql.SQL(" and ").join(conditions))
    towards: LiteralString = "asc" if filters.oldest_first else "desc"
    query += sql.SQL(f" order by {', '.join([f'{column} {towards}' for column in order])}")
    if filters.limit is not None:
        query += sql.SQL(" limit %s")
        parameters.append(filters.limit)
    return query, parameters


def stored_keys(text: str) -> list[str]:
    """What the store may have for a key as it was typed: itself, and, for a composite one, in its
    spacing; a digest of what is too long."""
    found = [text]
    with contextlib.suppress(ValueError, RecursionError):
        parts = json.loads(text)
        if isinstance(parts, list) and parts:
            texts = [part if isinstance(part, str | None) else json.dumps(part) for part in parts]
            found.append(msgspec.json.encode(texts).decode())
    return [digested(key.encode()).decode() for key in found]


def _column_is(image: Literal["before", "after"], value: str) -> LiteralString:
    """A column of an image compared as text; `null` is NULL, too."""
    if value == "null":
        return f"({image} ->> %s::text = %s or {image} -> %s::text = 'null')"
    return f"{image} ->> %s::text = %s"


def _column(column: str, value: str) -> list[object]:
    return [column, value, column] if value == "null" else [column, value]


_Condition: TypeAlias = tuple[LiteralString, list[object]]


def _any_of(ways: Iterable[list[_Condition]]) -> tuple[LiteralString, *tuple[object, ...]]:
    """One condition with its parameters, of several that may each hold."""
    each = [condition for some in ways for condition in some]
    parameters = [parameter for _, some in each for parameter in some]
    return f"({' or '.join([condition for condition, _ in each])})", *parameters


def _context_conditions(path: str, value: str) -> list[_Condition]:
    """Ways in which a context can have `value` at `path`; each can use the GIN index."""
    found: list[_Condition] = []
    # A name may itself have dots in it.
    for names in {tuple(path.split(".")), (path,)}:
        found.append(("context @> %s::jsonb", [_nested(names, json.dumps(value))]))
        if value in ("true", "false", "null"):
            found.append(("context @> %s::jsonb", [_nested(names, value)]))
        elif _NUMBER.fullmatch(value):
            # 7 and 7.0 are the same number, but not the same text.
            found.append(
                (
                    "(context @> %s::jsonb and context #>> %s::text[] = %s)",
                    [_nested(names, value), list(names), value],
                )
            )
    return found


def _nested(names: tuple[str, ...], value: str) -> str:
    for name in reversed(names):
        value = f"{{{json.dumps(name)}:{value}}}"
    return value
