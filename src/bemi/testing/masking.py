"""Looks for texts in what the history has: those that a test names, and those that rules mask.

The latter are read from the database itself, of the rows that were changed and are still there.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from psycopg import sql

from bemi.connections import explained
from bemi.history.change import Change
from bemi.testing import telling
from bemi.testing.session import Session

_SHORTEST: Final = 4
"""Characters of a value that is told apart from others when it turns up somewhere."""

_KEY: Final = """
select array_agg(a.attname::text order by k.ordinality)
from pg_index i
cross join lateral unnest(i.indkey::int2[]) with ordinality k (attnum, ordinality)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = to_regclass(%s) and i.indisprimary and k.ordinality <= i.indnkeyatts
"""
_COLUMNS: Final = """
select coalesce(array_agg(attname::text order by attnum), '{}') from pg_attribute
where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped
"""


class Secret(msgspec.Struct, frozen=True):
    """A text that must not be readable, and what to call it."""

    text: str
    called: str


def readable(changes: Iterable[Change], secrets: Sequence[Secret]) -> list[str]:
    """Where in the changes they are, each in a line."""
    return [
        f"{secret.called} in {place} of {change.operation} {telling.table(change)}"
        + ("" if change.primary_key is None else f" {telling.name(change.primary_key)}")
        for change in changes
        for place, text in _texts(change)
        for secret in secrets
        if secret.text in text
    ]


def secrets(session: Session, changes: Iterable[Change]) -> list[Secret]:
    """The values of masked, hashed and excluded columns, as the database has them now."""
    rows: dict[tuple[str, str], set[str]] = {}
    for change in changes:
        if change.primary_key is not None:
            rows.setdefault((change.schema, change.table), set()).add(change.primary_key)
    return [
        secret
        for (schema, table), keys in rows.items()
        for secret in _of_table(session, schema, table, sorted(keys))
    ]


def _of_table(session: Session, schema: str, table: str, keys: Sequence[str]) -> Iterator[Secret]:
    identifier = sql.Identifier(schema, table)
    qualified = identifier.as_string(None)
    with explained("source"):
        (names,) = session.source.execute(_COLUMNS, [qualified]).fetchone() or ([],)
        (parts,) = session.source.execute(_KEY, [qualified]).fetchone() or (None,)
        rules = session.kept.rules.for_table(schema, table, names)
        hidden = [names[at] for at in sorted(rules.exclude | rules.mask | rules.hash)]
        if not hidden or not parts:
            return
        query = sql.SQL("select {} from {} where {}").format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(n)) for n in hidden),
            identifier,
            sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(n)) for n in parts),
        )
        for key in keys:
            values = [key] if len(parts) == 1 else json.loads(key)
            row = session.source.execute(query, values).fetchone()
            for name, text in zip(hidden, row or (), strict=False):
                if text is not None and len(text) >= _SHORTEST:
                    of = f"{telling.name(table)} {telling.name(key)}"
                    yield Secret(text, f"the {telling.name(name)} of {of}")


def _texts(change: Change) -> Iterator[tuple[str, str]]:
    """Every text that a reader of the history sees of it, with its place."""
    for what in ("before", "after", "context"):
        for name, value in getattr(change, what).items():
            place = f"{what}, {telling.name(name)}"
            yield from ((place, text) for text in _within(value))
    for what in ("primary_key", "previous_key"):
        if (text := getattr(change, what)) is not None:
            yield what, text


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _within(each)
    elif isinstance(value, list):
        for each in value:
            yield from _within(each)
    elif value is not None:
        yield str(value)
