"""The sources: how far the history of each is, what is complete of its tables, and what needs
somebody."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi import observed
from bemi.amounts import span
from bemi.api.access import Viewer
from bemi.api.asking import Asked, Text
from bemi.api.routes import sources as of_api
from bemi.api.serving import Served
from bemi.store.covered import missing_words, state_words, summary
from bemi.store.extent import SourceCoverage, TableCoverage
from bemi.ui import empty, links
from bemi.ui.rendering import page

router = APIRouter()

_TABLES: Final = 300
_SILENT: Final = 60.0
"""Seconds without a checkpoint, which an idle worker writes every ten."""
_OFTEN: Final = 3
"""Seconds after which a page that is looked at is read again, while a baseline runs; else:"""
_SELDOM: Final = 30
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


class Baseline(msgspec.Struct, frozen=True):
    """One that runs. `most`: about how many rows there are, 0 where that is not known."""

    table: str
    rows: int
    most: int
    begun_at: datetime
    left: str


class Source(msgspec.Struct, frozen=True):
    """`more`: tables that are not in `tables`. `live`: what it says itself, where it may be
    told and is known."""

    name: str
    health: str
    word: str
    is_silent: bool
    given: dict[str, Any]
    covered: str
    missing: list[str]
    tables: list[Table]
    more: int
    baselines: list[Baseline]
    live: dict[str, Any] | None
    facts: list[tuple[str, str]]
    rules: str


@router.get("/sources")
def sources(
    request: Request, who: Viewer, serving: Served, _asked: Annotated[Asking, Query()]
) -> Response:
    lives = (
        {each["source"]: each for each in of_api.lives(serving, who)} if who.scope is None else {}
    )
    seen = of_api.seen(serving, who)
    found = [_source(*each, lives.pop(each[0]["source"], None)) for each in seen]
    reason: empty.Empty | None = None
    if not found:
        with serving.archive.connected() as conn:
            reason = empty.reason(conn, serving.archive.schema, who, [])
    return page(
        request,
        "sources.html",
        who,
        sources=found,
        strangers=[*lives.values()],
        empty=reason,
        again=_OFTEN if any(each.baselines for each in found) else _SELDOM,
        json="/api/v1/sources",
    )


def _source(given: dict[str, Any], covered: SourceCoverage, live: dict[str, Any] | None) -> Source:
    health, age = given["health"], given["age"]
    estimates = {} if live is None else live["estimates"]
    said = None if live is None else live["live"]
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
        baselines=[*_baselines(covered, estimates)],
        live=live,
        facts=[] if said is None else observed.rows(said, paused=given["paused_at"] is not None),
        rules=links.url("/sources/rules", {"source": given["source"]}),
    )


def _baselines(covered: SourceCoverage, estimates: Mapping[int, int]) -> Iterator[Baseline]:
    now = datetime.now(UTC)
    for each in covered.tables:
        if each.state == "baseline_running" and each.baseline is not None:
            rows, most = each.baseline.rows, estimates.get(each.relation, 0)
            taken = (now - each.baseline.started_at).total_seconds()
            left = (most - rows) * taken / rows if 0 < rows < most else 0
            yield Baseline(
                each.name, rows, most, each.baseline.started_at, span(left) if left else ""
            )


def _table(table: TableCoverage, source: str) -> Table:
    return Table(
        name=table.name,
        href=links.url("/", {"table": table.root, "source": source}),
        is_known=table.state == "known",
        state=state_words(table),
        missing=[missing_words(each) for each in table.missing],
    )
