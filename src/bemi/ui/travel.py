"""Time travel: the tables as they were at a moment that is picked."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import psycopg
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi.api.access import Viewer
from bemi.api.asking import OfSource, Text
from bemi.api.principals import Principal
from bemi.api.serving import Served
from bemi.errors import BemiError, UnknownStateError, UsageError
from bemi.history import moments, state
from bemi.history.moments import Moment
from bemi.store import reader
from bemi.ui import links, moment
from bemi.ui.rendering import page
from bemi.ui.telling import name_of
from bemi.ui.values import visible

router = APIRouter()

_TABLES: Final = 500
_LOOKED: Final = 50
"""Tables of which it is looked whether all of their rows are known."""


class OfTables(OfSource):
    moment: Text | None = None


class Listed(msgspec.Struct, frozen=True):
    """A table; `doubt`: why not all of its rows are surely known."""

    name: str
    href: str
    doubt: str | None


class OfOne(msgspec.Struct, frozen=True):
    """The tables of a source, or why they can't be told."""

    source: str
    tables: list[Listed]
    more: int
    problem: BemiError | None


@router.get("/tables")
def tables(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfTables, Query()]
) -> Response:
    """Of each source the tables that it had at the moment that was picked, or as of the end."""
    when = moment.read(asked.moment)
    with serving.archive.connected() as conn:
        names = reader.sources(conn, serving.archive.schema)
        if asked.source is not None:
            names = [name for name in names if name == asked.source]
        found = [_of_one(conn, serving.archive.schema, who, name, when) for name in names]
    several = [each for each in found if each.tables or each.problem]
    return page(request, "tables.html", who, sources=several)


def _of_one(
    conn: psycopg.Connection[Any],
    schema: str,
    who: Principal,
    source: str,
    when: datetime | None,
) -> OfOne:
    try:
        place = (
            moments.newest(conn, schema, source)
            if when is None
            else moments.find(conn, schema, when, source=source)
        )
    except (UnknownStateError, UsageError) as error:
        # Who may see none of its tables is not told of it either.
        return OfOne(source, [], 0, error if who.scope is None else None)
    names = [name for name in moments.tables(conn, schema, place) if who.sees(name)]
    listed = [
        Listed(
            name_of(*name.split(".", 1)),
            links.url("/table", {"table": name, "source": source}),
            _doubt(conn, schema, place, name) if at < _LOOKED else None,
        )
        for at, name in enumerate(names[:_TABLES])
    ]
    return OfOne(source, listed, len(names) - len(listed), None)


def _doubt(conn: psycopg.Connection[Any], schema: str, place: Moment, name: str) -> str | None:
    try:
        question = state.asked(
            conn, schema, place.source, name, place.position, epoch=place.epoch, allow_gaps=True
        )
    except (UnknownStateError, UsageError) as error:
        return visible(str(error))
    return None if question.uncertain is None else visible(question.uncertain)
