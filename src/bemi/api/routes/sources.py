"""Sources and how they are; tables and what is complete of them."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import msgspec
import psycopg
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bemi.api import shapes, shapes_of_sources
from bemi.api.access import Viewer
from bemi.api.answers import json_of
from bemi.api.asking import OfSource, Text
from bemi.api.lives import PATIENCE, Told
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.store import amiss, completeness, extent, reader
from bemi.store.extent import SourceCoverage
from bemi.store.reader import Gap, SourceStatus

router = APIRouter(prefix=PREFIX, tags=["sources"])


class OfTables(OfSource):
    # What is in brackets takes the square of its length to read.
    table: Text | None = Field(
        None,
        max_length=200,
        description="Glob SCHEMA.TABLE of the tables; without a schema in public.",
    )


@router.get("/sources", **told(shapes.Sources))
def sources(request: Request, who: Viewer, serving: Served) -> Response:
    """How far the history of each source is, what is missing in it, and what needs somebody."""
    return json_of(request, {"sources": [each for each, _ in seen(serving, who)]})


@router.get("/tables", **told(shapes.Tables))
def tables(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfTables, Query()]
) -> Response:
    """The tables that the history has, or had, and whether all of their rows are known."""
    listed = [
        {
            "source": each.source,
            "table": table.root,
            "partition": table.partition,
            "state": table.state,
            "complete_since": None if table.last.state is None else table.last.state.time,
            "missing": len(table.missing),
        }
        for each in _coverage(serving, asked, who)
        for table in each.tables
    ]
    return json_of(request, {"tables": listed})


@router.get("/coverage", **told(shapes.Coverage))
def coverage(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfTables, Query()]
) -> Response:
    """Of each table from where to where its changes are complete, and what is missing and why."""
    found = [extent.as_json(each) for each in _coverage(serving, asked, who)]
    return json_of(request, {"coverage": found})


@router.get("/sources/live", **told(shapes_of_sources.Lives))
def live(request: Request, who: Viewer, serving: Served) -> Response:
    """What the sources that the server has in its settings say themselves, some seconds ago at
    most: slot and WAL that is kept for it, lag, tables that are not tracked; and how far baselines
    are. That takes the right to see all tables."""
    return json_of(request, {"sources": [*lives(serving, who)]})


def lives(serving: Serving, who: Principal) -> Iterator[dict[str, Any]]:
    """One for each source that the server has in its settings. Why one could not be asked is told
    to admins alone, since it may name hosts. Raises `ForbiddenError`."""
    who.require_all("what the sources say themselves")
    for name, found in serving.lives.now().items():
        seen = None if found is None else found.seen
        yield {
            "source": name,
            "asked_at": None if found is None else found.asked_at,
            "live": None if seen is None else seen.live,
            "findings": [] if seen is None else seen.findings,
            "estimates": {} if seen is None else seen.estimates,
            "problem": None if seen is not None else _problem(found, who),
        }


def _problem(found: Told | None, who: Principal) -> dict[str, str | None]:
    if found is None:
        return {"reason": f"it did not answer within {PATIENCE:g} s", "fix": None}
    if not who.may("admin"):
        return {"reason": "it can't be asked just now; an admin sees why", "fix": None}
    return {"reason": found.reason, "fix": found.fix}


def seen(serving: Serving, who: Principal) -> list[tuple[dict[str, Any], SourceCoverage]]:
    """Each source, and what of its tables is complete, as far as it may be seen."""
    schema = serving.archive.schema
    with serving.archive.connected() as conn:
        return _covered(conn, schema, reader.status(conn, schema), who)


def needing(serving: Serving, who: Principal) -> list[str]:
    """What needs somebody before the history is whole: for pages, which would show what is there
    as if it were all."""
    schema = serving.archive.schema
    with serving.archive.connected() as conn:
        found = reader.status(conn, schema)
        # Else there is nothing that could be, and what is covered need not be read.
        if not any(each.unaccepted for each in found):
            return []
        shown = _covered(conn, schema, found, who)
    return [finding for source, _ in shown for finding in source["findings"]]


def _covered(
    conn: psycopg.Connection[Any], schema: str, found: Iterable[SourceStatus], who: Principal
) -> list[tuple[dict[str, Any], SourceCoverage]]:
    covered = {each.source: _seen(each, who) for each in completeness.read(conn, schema)}
    return [
        (_source(each, covered[each.source], who), covered[each.source])
        for each in found
        if each.source in covered
    ]


def _coverage(serving: Serving, asked: OfTables, who: Principal) -> Iterable[SourceCoverage]:
    names = () if asked.source is None else (asked.source,)
    with serving.archive.connected() as conn:
        found = completeness.read(conn, serving.archive.schema, sources=names, glob=asked.table)
    return [_seen(each, who) for each in found]


def _seen(each: SourceCoverage, who: Principal) -> SourceCoverage:
    tables = tuple(table for table in each.tables if who.sees(table.root))
    return msgspec.structs.replace(each, tables=tables)


def _source(each: SourceStatus, covered: SourceCoverage, who: Principal) -> dict[str, Any]:
    # By the names that partitions have themselves; what is covered has been cut to what is seen.
    names = {None, *(table.name for table in covered.tables)}
    shown = [gap for gap in each.gaps if who.scope is None or gap.table in names]
    seen = msgspec.structs.replace(each, gaps=shown)
    return msgspec.structs.asdict(seen) | {
        "position": None if each.position is None else str(each.position),
        "gaps": [_gap(gap) for gap in shown],
        "health": _health(seen),
        "findings": amiss.findings(seen, covered),
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return msgspec.structs.asdict(gap) | {
        "from_position": str(gap.from_position),
        "to_position": str(gap.to_position),
    }


def _health(each: SourceStatus) -> Literal["ok", "paused", "removed", "unfinished", "gap"]:
    if each.removed_at is not None:
        return "removed"
    if each.position is None:
        return "unfinished"
    if each.unaccepted:
        return "gap"
    return "ok" if each.paused_at is None else "paused"
