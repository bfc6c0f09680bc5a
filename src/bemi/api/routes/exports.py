"""Changes as a file, however many: sent as they are read, or written down to be fetched later."""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Annotated, Any, Final

import psycopg
from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import FileResponse, Response

from bemi.api import shapes, showing
from bemi.api.access import Viewer, owner, record
from bemi.api.answers import NDJSON, Streamed, json_of, lines
from bemi.api.asking import Exported, Format, Sent, Text, narrowed
from bemi.api.background import Export
from bemi.api.exports import csv
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.errors import BemiError, UnknownStateError
from bemi.store import reader
from bemi.store.filters import Filters
from bemi.store.reader import StoredChange

router = APIRouter(prefix=PREFIX, tags=["exports"])

_PATIENCE: Final = 5.0
"""Seconds in which a question can be stopped."""
CSV: Final = "text/csv; charset=utf-8"

Id = Annotated[Text, Path(description="An export's id.", max_length=100)]


class Background(Sent):
    oldest_first: bool = Field(False, description="The oldest come first, instead of the newest.")
    limit: int | None = Field(None, ge=1, lt=1 << 63, description="Null: all.")
    format: Format = "ndjson"


@router.get("/export", **told((NDJSON, "text/csv")))
def export(
    request: Request, who: Viewer, serving: Served, asked: Annotated[Exported, Query()]
) -> Response:
    """All changes that the filters let through, as of one moment. An export that breaks off ends
    without the end of its body, so that no client takes it for whole."""
    filters = asked.filters(who)
    found = _changes(serving.archive.connected(), serving, who, filters)
    made, kind = _written(found, asked.format)
    taken = serving.exports.taking(owner(request, who), made, found)
    return Streamed(taken, kind, Content_Disposition=_as_file(asked.format))


@router.post("/exports", **told(shapes.Export, 202))
def start_export(request: Request, who: Viewer, serving: Served, wanted: Background) -> Response:
    """The same behind your back. The file is kept for an hour, by this server alone."""
    record(request, who, wanted.model_dump(exclude_unset=True))
    given = {**wanted.filters(), "oldest_first": wanted.oldest_first, "limit": wanted.limit}
    filters = narrowed(given, who)

    taker = owner(request, who)

    def made(at: Export) -> Generator[bytes]:
        with closing(_changes(_stoppable(serving, at), serving, who, filters)) as found:
            yield from taker.taking(_written(_counted(found, at), wanted.format)[0])

    started = serving.background.start(who.rights, wanted.format, made)
    return json_of(request, _shown(started), 202)


@router.get("/exports", **told(shapes.Exports))
def list_exports(request: Request, who: Viewer, serving: Served) -> Response:
    """Your own."""
    found = serving.background.of(who.rights)
    return json_of(request, {"exports": [_shown(each) for each in found]})


@router.get("/exports/{id}", **told(shapes.Export))
def export_by_id(request: Request, id: Id, who: Viewer, serving: Served) -> Response:
    """How far it is."""
    return json_of(request, _shown(serving.background.one(who.rights, id)))


@router.get("/exports/{id}/file", **told((NDJSON, "text/csv")))
def export_file(id: Id, who: Viewer, serving: Served) -> Response:
    """What it came to, when it is done."""
    found = serving.background.one(who.rights, id)
    if found.state != "done":
        raise UnknownStateError(f"the export is {found.state}", fix="ask how far it is")
    return FileResponse(
        found.path,
        media_type=CSV if found.format == "csv" else NDJSON,
        headers={"Content-Disposition": _as_file(found.format)},
    )


@router.delete("/exports/{id}", **told(shapes.Exports))
def delete_export(request: Request, id: Id, who: Viewer, serving: Served) -> Response:
    """Give it up, or its file."""
    serving.background.delete(who.rights, id)
    return list_exports(request, who, serving)


@contextmanager
def _stoppable(serving: Serving, at: Export) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own, which nobody else has by the time that it is stopped."""
    with serving.archive.alone() as conn:
        at.stop = partial(conn.cancel_safe, timeout=_PATIENCE)
        try:
            if at.given_up:
                raise BemiError("it was given up before it began")
            yield conn
        finally:
            at.stop = None


def _changes(
    connected: AbstractContextManager[psycopg.Connection[Any]],
    serving: Serving,
    who: Principal,
    filters: Filters,
) -> Generator[StoredChange]:
    with (
        connected as conn,
        closing(reader.changes(conn, serving.archive.schema, filters)) as rows,
    ):
        for each in rows:
            yield showing.change(each, who)


def _counted(changes: Iterator[StoredChange], at: Export) -> Iterator[StoredChange]:
    for each in changes:
        yield each
        at.rows += 1


def _written(changes: Iterator[StoredChange], form: Format) -> tuple[Generator[bytes], str]:
    return (csv(changes), CSV) if form == "csv" else (lines(changes), NDJSON)


def _as_file(form: str) -> str:
    return f'attachment; filename="changes.{form}"'


def _shown(export: Export) -> dict[str, Any]:
    names = ("id", "format", "asked_at", "state", "rows", "bytes", "error")
    return {name: getattr(export, name) for name in names}
