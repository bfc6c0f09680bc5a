"""The schemas of travels in the destination: each has a mark in its comment that says what was made
there, so that these are dropped together, and nothing else with them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.errors import BemiError, UsageError
from bemi.history.asking import schema_of
from bemi.history.moments import Moment

MARK: Final = "travel"
"""What the comment says under `bemi`."""


def targets(into: str, schemas: Sequence[str]) -> dict[str, str]:
    """By schema of the source, the one that stands for it."""
    found = {each: into if len(schemas) == 1 else f"{into}_{each}" for each in schemas}
    for target in found.values():
        schema_of(target)
    return found


def mark(
    conn: psycopg.Connection[Any],
    into: str,
    targets: Mapping[str, str],
    place: Moment,
    time: datetime | None,
    made: Sequence[tuple[str, str]],
) -> None:
    """Write down what was made, so that nothing else is dropped with it."""
    for of, target in targets.items():
        written = {
            "bemi": MARK,
            "into": into,
            "source": place.source,
            "schema": of,
            "epoch": place.epoch,
            "position": str(place.position),
            "time": None if time is None else time.isoformat(),
            "made": [name for schema, name in made if schema == target],
        }
        comment = sql.Literal(json.dumps(written, ensure_ascii=False))
        conn.execute(sql.SQL("comment on schema {} is {}").format(sql.Identifier(target), comment))


def drop(conn: psycopg.Connection[Any], into: str, *, among: Iterable[str] = ()) -> list[str]:
    """Drop what a travel made `into`; the schemas. Others that are in `among` must not be there.

    Raises `UsageError` for a schema that no travel made, and `BemiError` where something else
    depends on what is to be dropped.
    """
    with conn.transaction():
        rows = conn.execute(
            "select nspname, obj_description(oid, 'pg_namespace') from pg_namespace"
            " where nspname = any(%s) or nspname = %s or starts_with(nspname, %s)"
            " order by nspname",
            [[*among], into, f"{into}_"],
        ).fetchall()
        marks = {name: _mark_of(comment) for name, comment in rows}
        made = [name for name, mark in marks.items() if mark.get("into") == into]
        for name, _ in rows:
            if name in among and name not in made:
                raise UsageError(
                    f'there is a schema "{name}" that `bemi travel --into {into}` did not make',
                    fix="choose another name with --into, or drop it yourself",
                )
        try:
            _drop(conn, {name: marks[name].get("made") for name in made})
        except psycopg.errors.DependentObjectsStillExist as error:
            detail = error.diag.message_detail or ""
            raise BemiError(
                f"something that `bemi travel` did not make depends on {', '.join(made)}: {detail}",
                fix="drop that first, or travel into another schema with --into",
            ) from error
    return made


_VIEWS: Final = (
    "select n.nspname, c.relname from pg_class c join pg_namespace n"
    " on n.oid = c.relnamespace where c.relkind = 'v'"
)
_TYPES: Final = (
    "select n.nspname, t.typname from pg_type t join pg_namespace n"
    " on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid"
    " where (t.typtype in ('e', 'd') or c.relkind = 'c')"
)
_OF_THESE: Final = " and (n.nspname, {}) in (select * from unnest(%s::text[], %s::text[]))"


def _drop(conn: psycopg.Connection[Any], made: Mapping[str, Any]) -> None:
    """What was made in each of the schemas; nothing else goes with it."""
    of_them = [
        (schema, name)
        for schema, names in made.items()
        for name in (names if isinstance(names, list) else ())
    ]
    parameters = [[schema for schema, _ in of_them], [name for _, name in of_them]]
    for kind, query, column in (
        (sql.SQL("view"), _VIEWS, "c.relname"),
        (sql.SQL("type"), _TYPES, "t.typname"),
    ):
        rows = conn.execute((query + _OF_THESE.format(column)).encode(), parameters)
        names = [sql.Identifier(*row) for row in rows]
        if names:
            conn.execute(sql.SQL("drop {} {}").format(kind, sql.SQL(", ").join(names)))
    for name in made:
        conn.execute(sql.SQL("drop schema {}").format(sql.Identifier(name)))


def _mark_of(comment: str | None) -> Mapping[str, Any]:
    """What a travel has written into a schema's comment; nothing in that of another."""
    with suppress(ValueError):
        mark = json.loads(comment or "")
        if isinstance(mark, dict) and mark.get("bemi") == MARK:
            return mark
    return {}
