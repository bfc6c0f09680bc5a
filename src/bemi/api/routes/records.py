"""Records and tables as they were, what they differ in between two times, and who set what."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Annotated, Any, Final, cast
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi import tabular
from bemi.api import shapes, showing
from bemi.api.access import Viewer, owner
from bemi.api.answers import NDJSON, Streamed, json_of, lines
from bemi.api.asking import Listed, OfRecord, RecordAt, TableBetween, TableExported
from bemi.api.principals import Principal
from bemi.api.routes.changes import page
from bemi.api.routes.exports import CSV
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.api.states import rows_at
from bemi.errors import UsageError
from bemi.history.change import Row
from bemi.history.difference import Difference
from bemi.store import reader
from bemi.store.scope import split

router = APIRouter(prefix=PREFIX, tags=["records"])

_IN_FILE_NAMES: Final = 100


@router.get("/record/changes", **told(shapes.Changes))
def timeline(
    request: Request, who: Viewer, serving: Served, asked: Annotated[Listed, Query()]
) -> Response:
    """All changes of a record, also under its other keys, the newest first. Takes `table` and
    `key`."""
    if asked.table is None or asked.key is None:
        raise UsageError("a record has a table and a key", fix="give table= and key=")
    return json_of(request, page(serving, who, asked.filters(who)))


@router.get("/record/blame", **told(shapes.BlameList))
def blame(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfRecord, Query()]
) -> Response:
    """Which change gave each column of a record the value that it has."""
    names = columns(serving, who, asked.table)
    found = serving.archive.history.blame(asked.table, asked.key, source=asked.source)
    shown = (showing.blame(each, names, who) for each in found)
    return json_of(request, {"columns": [each for each in shown if each is not None]})


@router.get("/record/at", **told(shapes.Record))
def record_at(
    request: Request, who: Viewer, serving: Served, asked: Annotated[RecordAt, Query()]
) -> Response:
    """A record as it was."""
    names = columns(serving, who, asked.table)
    found = rows_at(
        serving.archive,
        asked.when,
        asked.table,
        asked.key,
        source=asked.source,
        allow_gaps=asked.allow_gaps,
    )
    with closing(found):
        uncertain = next(found)
        row = cast(Row | None, next(found, None))
    shown = None if row is None else showing.row(row, names)
    return json_of(request, {"row": shown, "uncertain": uncertain})


@router.get("/table/at", **told((NDJSON, "text/csv")))
def table_at(
    request: Request, who: Viewer, serving: Served, asked: Annotated[TableExported, Query()]
) -> Response:
    """The rows of a table as they were, one on a line: its key, its values, its flags; of CSV the
    values only.

    With `allow_gaps`, rows that are not surely known have the flag `uncertain`, and the header
    `Bemi-Uncertain` says why, percent-encoded: others may be missing.
    """
    names = columns(serving, who, asked.table)
    found = rows_at(
        serving.archive,
        asked.when,
        asked.table,
        source=asked.source,
        allow_gaps=asked.allow_gaps,
    )
    uncertain = next(found)
    rows = cast(Iterator[Row], found)
    shown = (showing.row(row, names) for row in rows)
    headers = {} if uncertain is None else {"Bemi_Uncertain": quote(str(uncertain))}
    headers["Content_Disposition"] = f'attachment; filename="{_file(asked)}"'
    if asked.format == "csv":
        made, kind = tabular.pieces((row.values for row in shown), ()), CSV
    else:
        made, kind = lines(shown), NDJSON
    return Streamed(serving.exports.taking(owner(request, who), made, found), kind, **headers)


def _file(asked: TableExported) -> str:
    """`orders-2026-05-03T14-02-07Z.csv`: several of them lie in one folder."""
    when = asked.when.replace("+00:00", "Z")
    words = f"{asked.table.removeprefix('public.')}-{when}"
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", words)[:_IN_FILE_NAMES].strip("-.")
    return f"{plain or 'rows'}.{asked.format}"


@router.get("/table/diff", **told((NDJSON,)))
def table_diff(
    request: Request, who: Viewer, serving: Served, asked: Annotated[TableBetween, Query()]
) -> Response:
    """What rows of a table, or one of them, differ in between two times: one on a line."""
    names = columns(serving, who, asked.table)
    keys = () if asked.key is None else (asked.key,)
    found = serving.archive.history.diff(
        asked.table, *keys, start=asked.start, end=asked.end, source=asked.source
    )
    shown = _differences(found, names)
    return Streamed(serving.exports.taking(owner(request, who), lines(shown), shown), NDJSON)


def _differences(
    found: Iterator[Difference], names: frozenset[str] | None
) -> Generator[dict[str, Any]]:
    with closing(cast(Generator[Difference], found)):
        for each in found:
            shown = showing.difference(each, names)
            if shown is not None:
                yield shown


def columns(serving: Serving, who: Principal, table: str) -> frozenset[str] | None:
    """Those that may be seen of the rows of a table, or of a partition: its rows are rows of the
    table above it. None: all. Raises `ForbiddenError`."""
    who.require_table(table)
    if who.scope is None:
        return None
    name = table if "." in table else f"public.{table}"
    with serving.archive.connected() as conn:
        roots = reader.roots_of(conn, serving.archive.schema, name)
    seen: frozenset[str] | None = who.scope.columns(*split(table))
    for root in roots:
        if not who.scope.covers(*root):
            who.refuse_table(table)
        names = who.scope.columns(*root)
        seen = names if seen is None else seen if names is None else seen & names
    return seen
