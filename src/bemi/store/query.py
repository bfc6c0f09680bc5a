"""Filters as SQL: a SELECT from the view `changes`, of which each condition can use an index where
there is one."""

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Final, Literal, LiteralString, NamedTuple, TypeAlias

import msgspec
from psycopg import sql

from bemi.keys import digested
from bemi.store.filters import Filters, Portion, Window
from bemi.store.own import Own
from bemi.store.scope import Visible, like

_OF_A_TRACE: Final = ("trace_id", "request_id")

_PLACE: Final[tuple[LiteralString, ...]] = ("committed_at", "commit_position", "ordinal", "epoch")

# Compared as rows, a change is found by one index only, however many its commit has.
_OF_PLACES: Final[LiteralString] = """
select {} from ({}) p cross join lateral (
    select * from {} c
    where c.committed_at = p.committed_at and c.epoch = p.epoch
        and (c.commit_position, c.ordinal) >= (p.commit_position, p.ordinal)
        and (c.commit_position, c.ordinal) <= (p.commit_position, p.ordinal)
) c"""

# A number as jsonb prints it: never with an exponent.
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,99})(\.\d{1,99})?")


class Among(NamedTuple):
    """Some of the changes, called `c`, with the columns that filters ask for; and in which order
    they come already."""

    relation: sql.Composable
    parameters: list[object]
    order: tuple[LiteralString, ...] = ()


def compiled(
    schema: str, filters: Filters, columns: Iterable[str], among: Among | None = None
) -> tuple[sql.Composed, list[object]]:
    """A SELECT of the columns of the view `changes` that the filters let through, in their order;
    of a page, `among` those only.

    Names are quoted; values are parameters, which come with it.
    """
    where, parameters = conditions(schema, filters)
    # By time it is the order of the store's unique index, forwards or backwards.
    order: list[LiteralString] = [*_PLACE]
    if filters.by_log:
        order = ["epoch", "commit_position", "ordinal"]
    # A context may have thousands of changes: their places are sorted, and what a page shows of
    # them is read of those that are on it.
    page = filters.limit is not None and (filters.context or filters.trace is not None)
    shown = [*columns]
    changes = sql.Identifier(schema, "changes")
    relation: sql.Composable = changes
    sorted_by = order
    if among is not None:
        page = True
        relation = among.relation
        parameters = [*among.parameters, *parameters]
        sorted_by = [*among.order, *order]
    query = sql.SQL("select {} from {} where {}").format(
        sql.SQL(", ").join(map(sql.Identifier, _PLACE if page else shown)), relation, where
    )
    if filters.behind is not None:
        beyond: LiteralString = ">" if filters.oldest_first else "<"
        values: LiteralString = ", ".join(["%s"] * len(order))
        query += sql.SQL(f" and ({', '.join(order)}) {beyond} ({values})")
        parameters += [getattr(filters.behind, column) for column in order]
    towards: LiteralString = "asc" if filters.oldest_first else "desc"
    query += sql.SQL(f" order by {', '.join([f'{column} {towards}' for column in sorted_by])}")
    if filters.limit is not None:
        query += sql.SQL(" limit %s")
        parameters.append(filters.limit)
    if page:
        names = sql.SQL(", ").join([sql.Identifier("c", column) for column in shown])
        query = sql.SQL(_OF_PLACES).format(names, query, changes)
        query += sql.SQL(f" order by {', '.join([f'p.{column} {towards}' for column in order])}")
    return query, parameters


def conditions(schema: str, filters: Filters) -> tuple[sql.Composed, list[object]]:
    """What the filters require of a row of the view `changes`, with its parameters: not which page
    of them, nor in which order."""
    required: list[sql.Composable] = []
    parameters: list[object] = []

    def require(condition: LiteralString, *values: object) -> None:
        required.append(sql.SQL(condition))
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
        required.append(at)
        parameters.append(filters.id)
        require("id = %s", filters.id)
    for path, value in filters.context:
        require(*_any_of([_context_conditions(path, value)]))
    if filters.scope is not None:
        require(*_any_of([_table_condition(entry)] for entry in filters.scope.entries))
    if filters.own is not None:
        require(*_any_of([_own_condition(each)] for each in filters.own))
    within = filters.within
    if isinstance(within, Window):
        require(
            "epoch = %s and commit_position >= %s and commit_position < %s "
            "and (commit_position, ordinal) > (%s, %s)",
            *(within.epoch, within.commit, within.end, within.commit, within.ordinal),
        )
    elif isinstance(within, Portion):
        # By the unique index: the one on positions would walk over the whole transaction.
        require(
            "epoch = %s and committed_at = %s and commit_position = %s "
            "and ordinal > %s and ordinal <= %s",
            *(within.epoch, within.committed_at, within.commit, within.ordinal, within.last),
        )
    return sql.SQL(" and ").join(required or [sql.SQL("true")]), parameters


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
    """One condition with its parameters, of several that may each hold; of none, none does."""
    each = [condition for some in ways for condition in some]
    parameters = [parameter for _, some in each for parameter in some]
    return f"({' or '.join([condition for condition, _ in each]) or 'false'})", *parameters


def _table_condition(entry: Visible) -> _Condition:
    schema, table = entry.parts
    if "*" in entry.table:
        return '(schema like %s and "table" like %s)', [like(schema), like(table)]
    return '(schema = %s and "table" = %s)', [schema, table]


def _own_condition(own: Own) -> _Condition:
    of: LiteralString = '(schema = %s and "table" = %s)'
    if own.column is None:
        return of, [own.schema, own.table]
    # Two expressions that an index can have, each.
    return (
        f"({of} and (after ->> %s::text = %s or before ->> %s::text = %s))",
        [own.schema, own.table, *(own.column, own.tenant) * 2],
    )


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
