"""Makes tables of another database, or of another schema, what the tracked ones were at a position.

All of them at one position, with types, keys and constraints, in one transaction: nothing is left
behind when it fails or is stopped. What can't be had is told, never left out silently.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from typing import Any, Protocol

import msgspec
import psycopg

from bemi.errors import UnknownStateError, UsageError
from bemi.history.filling import Filled, Filling, Unknown, prepare
from bemi.history.moments import Moment
from bemi.history.rebuilding import LeftOut, Rebuilding
from bemi.history.state import asked, rows
from bemi.store import definitions


class RestoredTable(msgspec.Struct, frozen=True):
    """`name`: what it is called in the target; `table`: what the history calls it."""

    table: str
    name: str
    rows: int


class Restored(msgspec.Struct, frozen=True):
    """What was made in the target, and what of it could not be as it was."""

    source: str
    epoch: int
    position: int
    tables: tuple[RestoredTable, ...]
    types: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    unknown: tuple[Unknown, ...]


class Follows(Protocol):
    """Is told how far it is."""

    def __call__(self, table: str, rows: int) -> None: ...


def restore(
    history: psycopg.Connection[Any],
    schema: str,
    place: Moment,
    target: psycopg.Connection[Any],
    *,
    into: str | None = None,
    tables: Sequence[str] = (),
    allow_gaps: bool = False,
    follow: Follows | None = None,
) -> Restored:
    """The tables of a source that match the globs `tables`, by default all, as they were.

    `into`: the schema of the target that all of them come into, which must be empty; None: those
    that they had, in a database that has no such tables. Raises `UnknownStateError` where the
    history can't tell the rows of one, unless `allow_gaps`, and `UsageError` for a target that is
    not free. It is for the caller to begin a transaction of the target, and to commit it.
    """
    with history.transaction():
        where = (schema, place.source, place.epoch, place.position)
        defined = definitions.at(history, *where)
        wanted = _wanted(defined, tables, place)
        there = {*definitions.shown(history, *where)}
        if not allow_gaps:
            there |= definitions.may_be_there(history, *where)
        questions = {}
        left_out: list[LeftOut] = []
        for oid in [*wanted]:
            name = (defined["table", oid].schema, defined["table", oid].name)
            table = ".".join(name)
            if name not in there and table not in _qualified(tables):
                # A look saw it later, or before. Where it may be there, it is asked for.
                wanted.remove(oid)
                left_out.append(
                    LeftOut(table, "the table", "by what is known it came later, or was gone")
                )
                continue
            questions[table] = question = asked(
                history,
                schema,
                place.source,
                table,
                place.position,
                epoch=place.epoch,
                allow_gaps=allow_gaps,
            )
            if question.uncertain is not None:
                left_out.append(LeftOut(table, "some of its rows", question.uncertain))
        if not wanted:
            raise _none(place)
        prepare(target)
        rebuilding = Rebuilding(target, defined, wanted, into)
        made = rebuilding.make()
        filling = Filling(history, schema, target)
        filled: list[Filled] = []
        for each in made:
            with closing(rows(history, questions[each.table])) as found:
                filled.append(filling.fill(each, found, _told(follow, each.table)))
    for each, its in zip(made, filled, strict=True):
        rebuilding.finish(each, its.lacking)
    for each in made:
        rebuilding.connect(each)
    return Restored(
        place.source,
        place.epoch,
        int(place.position),
        tuple(
            RestoredTable(each.table, ".".join(each.name), its.rows)
            for each, its in zip(made, filled, strict=True)
        ),
        tuple(rebuilding.types),
        (*left_out, *rebuilding.left_out),
        tuple(unknown for its in filled for unknown in its.unknown),
    )


def is_url(into: str) -> bool:
    """Whether it names a database, not a schema."""
    return "://" in into or "=" in into


def _told(follow: Follows | None, table: str) -> Callable[[int], None]:
    return lambda rows: None if follow is None else follow(table, rows)


def _wanted(
    defined: dict[tuple[str, int], definitions.Definition],
    tables: Sequence[str],
    place: Moment,
) -> list[int]:
    names = {
        f"{each.schema}.{each.name}": oid
        for (kind, oid), each in defined.items()
        if kind == "table"
    }
    if not names:
        raise _none(place)
    found: set[str] = set()
    for pattern in _qualified(tables):
        matching = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not matching:
            raise UsageError(
                f"no table {pattern} was tracked then",
                fix=f"there were {', '.join(sorted(names)[:10])}",
            )
        found |= matching
    return [names[name] for name in sorted(found or names)]


def _qualified(tables: Sequence[str]) -> list[str]:
    return [each if "." in each else f"public.{each}" for each in tables]


def _none(place: Moment) -> UnknownStateError:
    return UnknownStateError(
        f"no table of {place.source} is known at {place.position}",
        fix="ask for a later time: `bemi status --coverage` shows since when they are tracked",
    )
