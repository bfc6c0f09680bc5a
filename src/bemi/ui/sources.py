"""The sources: how far the history of each is, what is complete of its tables, and what needs
somebody."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi.api.access import Viewer
from bemi.api.asking import Asked, Text
from bemi.api.routes import sources as of_api
from bemi.api.serving import Served
from bemi.store.completeness import SourceCoverage, TableCoverage
from bemi.store.covered import missing_words, state_words, summary
from bemi.ui import empty, links
from bemi.ui.rendering import page

router = APIRouter()

_TABLES: Final = 300
_SILENT: Final = 60.0
"""Seconds without a checkpoint, which an idle worker writes every ten."""
_WORDS: Final = {
    "ok": "captured",
    "paused": "paused",
    "removed": "removed",
    "unfinished": "not set up",
    "gap": "gap",
}


class Asking(Asked):
    moment: Text | None = None


class Table(msgspec.Struct, frozen=True):
    name: str
    href: str
    is_known: bool
    state: str
    missing: list[str]


class Source(msgspec.Struct, frozen=True):
    """`more`: tables that are not in `tables`."""

    name: str
    health: str
    word: str
    is_silent: bool
    given: dict[str, Any]
    covered: str
    missing: list[str]
    tables: list[Table]
    more: int


@router.get("/sources")
def sources(
    request: Request, who: Viewer, serving: Served, _asked: Annotated[Asking, Query()]
) -> Response:
    found = [_source(*each) for each in of_api.seen(serving, who)]
    reason: empty.Empty | None = None
    if not found:
        with serving.archive.connected() as conn:
            reason = empty.reason(conn, serving.archive.schema, who, [])
    return page(request, "sources.html", who, sources=found, empty=reason, json="/api/v1/sources")


def _source(given: dict[str, Any], covered: SourceCoverage) -> Source:
    health, age = given["health"], given["age"]
    return Source(
        name=given["source"],
        health=health,
        word=_WORDS[health],
        is_silent=health in ("ok", "gap") and age is not None and age > _SILENT,
        given=given,
        covered=summary(covered),
        missing=[missing_words(each) for each in covered.missing],
        tables=[_table(each, covered.source) for each in covered.tables[:_TABLES]],
        more=max(0, len(covered.tables) - _TABLES),
    )


def _table(table: TableCoverage, source: str) -> Table:
    return Table(
        name=table.name,
        href=links.url("/", {"table": table.root, "source": source}),
        is_known=table.state == "known",
        state=state_words(table),
        missing=[missing_words(each) for each in table.missing],
    )
