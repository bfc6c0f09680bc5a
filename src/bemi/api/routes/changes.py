"""Changes, one by one, by transaction and by trace; and how many there were when."""

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from bemi.api import shapes, showing
from bemi.api.access import Viewer
from bemi.api.answers import json_of
from bemi.api.asking import Counted, Listed, OfSource, Text
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.api.summaries import Summary, summaries
from bemi.errors import UnknownStateError, UsageError
from bemi.history import trends
from bemi.history.asking import id_of
from bemi.history.change import Change
from bemi.history.difference import Difference
from bemi.store import reader
from bemi.store.filters import Filters, Place
from bemi.store.reader import StoredChange
from bemi.store.trends import Count

router = APIRouter(prefix=PREFIX, tags=["changes"])

Id = Annotated[Text, Path(description="A change's id.")]

_SHOWN: Final = 50
"""Changes of a transaction that are told in a list of several."""
_LARGEST: Final = 16 << 20
"""Bytes of values after which a page ends, however few changes it has by then."""
_MOST_BUCKETS: Final = 2000
_MOST_COUNTS: Final = 100_000
"""Of all groups in all buckets together: they are in memory, here and there."""


@router.get("/changes", **told(shapes.Changes))
def changes(
    request: Request, who: Viewer, serving: Served, asked: Annotated[Listed, Query()]
) -> Response:
    """Changes, the newest first, page by page.

    With `table` and `key` it is the timeline of a record, under its earlier keys too.
    """
    return json_of(request, page(serving, who, asked.filters(who)))


@router.get("/changes/{id}", **told(shapes.Change))
def change(
    request: Request, id: Id, who: Viewer, serving: Served, asked: Annotated[OfSource, Query()]
) -> Response:
    """The one with this id."""
    return json_of(request, showing.change(one(serving, who, id, asked.source), who))


@router.get("/changes/{id}/diff", **told(shapes.Difference))
def diff(
    request: Request, id: Id, who: Viewer, serving: Served, asked: Annotated[OfSource, Query()]
) -> Response:
    """What a change did, column by column."""
    stored = one(serving, who, id, asked.source)
    found = Difference.of_change(Change.of(stored))
    names = None if who.scope is None else who.scope.columns(stored.schema, stored.table)
    shown = showing.difference(found, names)
    if shown is None:
        shown = showing.difference(msgspec.structs.replace(found, columns={}, unknown=()), names)
    return json_of(request, shown)


@router.get("/transactions", **told(shapes.Transactions))
def transactions(
    request: Request, who: Viewer, serving: Served, asked: Annotated[Listed, Query()]
) -> Response:
    """Transactions in short, by the changes of theirs that the filters let through, the newest
    first. `limit` and `behind` are of transactions."""
    listed: list[dict[str, Any]] = []
    following, size = None, 0
    end: Place | None = None
    with (
        serving.archive.connected() as conn,
        closing(summaries(conn, serving.archive.schema, asked.filters(who, limit=None))) as each,
    ):
        for summary in each:
            if len(listed) == asked.limit or size > _LARGEST:
                following = str(end)
                break
            # What is not told of it is not kept: there may be a thousand transactions of that size.
            listed.append(_in_short(summary, who))
            size += sum(each.size for each in summary.changes[:_SHOWN])
            end = summary.end
    return json_of(request, {"transactions": listed, "next": following})


@router.get("/transactions/{transaction}", **told(shapes.Changes))
def transaction(
    request: Request,
    transaction: Annotated[int, Path(description="Its number on the source.")],
    who: Viewer,
    serving: Served,
    asked: Annotated[Listed, Query()],
) -> Response:
    """All that one transaction did, in order."""
    filters = asked.filters(who, transaction=transaction, oldest_first=True)
    return json_of(request, page(serving, who, filters))


@router.get("/traces/{trace:path}", **told(shapes.Changes))
def trace(
    request: Request,
    trace: Annotated[Text, Path(description="A trace_id or a request_id.")],
    who: Viewer,
    serving: Served,
    asked: Annotated[Listed, Query()],
) -> Response:
    """All that one request or trace did, over all sources, in the order of the commits."""
    filters = asked.filters(who, trace=trace, oldest_first=True)
    return json_of(request, page(serving, who, filters))


@router.get("/stats", **told(shapes.Counts))
def stats(
    request: Request, who: Viewer, serving: Served, asked: Annotated[Counted, Query()]
) -> Response:
    """How many changes there were when, 0 too; by up to two things that they have."""
    filters, by = asked.filters(who), asked.dimensions(who)
    counts: list[dict[str, Any]] = []
    with serving.archive.connected() as conn:
        trend = trends.plan(
            conn,
            serving.archive.schema,
            filters,
            by=by,
            every=asked.every,
            top=asked.top,
            now=datetime.now(UTC),
        )
        if trend is not None:
            bounded = _bounded(trend)
            with closing(trends.counts(conn, serving.archive.schema, filters, bounded)) as found:
                counts = [
                    _count(each, bounded, with_others=asked.top is not None) for each in found
                ]
    every = None if trend is None else trend.every
    return json_of(request, {"every": every, "by": [each.name for each in by], "counts": counts})


def page(serving: Serving, who: Principal, filters: Filters) -> dict[str, Any]:
    """Of as many changes as are wanted, or as there is room for."""
    assert filters.limit is not None
    one_more = replace(filters, limit=filters.limit + 1)
    with (
        serving.archive.connected() as conn,
        closing(reader.changes(conn, serving.archive.schema, one_more)) as rows,
    ):
        found: list[StoredChange] = []
        following, size = None, 0
        for each in rows:
            if len(found) == filters.limit or size > _LARGEST:
                following = str(found[-1].place)
                break
            found.append(each)
            size += each.size
    return {"changes": [showing.change(each, who) for each in found], "next": following}


def one(serving: Serving, who: Principal, id: str, source: str | None) -> StoredChange:
    """Raises `UnknownStateError`, also for one that may not be seen, and `UsageError`."""
    filters = Filters(id=id_of(id), source=source, scope=who.scope)
    with (
        serving.archive.connected() as conn,
        closing(reader.changes(conn, serving.archive.schema, filters)) as rows,
    ):
        found = list(rows)
    if not found:
        raise UnknownStateError(f"there is no change {id_of(id)} in the history")
    if len(found) > 1:
        raise UsageError(
            f"several sources have it: {', '.join(each.source for each in found)}",
            fix="say which one is meant: source=NAME",
        )
    return found[0]


def _count(found: Count, trend: trends.Trend, *, with_others: bool) -> dict[str, Any]:
    """Raises `UsageError` for others, where all groups are wanted."""
    if found.others and not with_others:
        raise UsageError(
            f"there are more than {trend.top:,} groups",
            fix="say how many are wanted: top=10 has the largest, and all others together",
        )
    values = dict(zip([each.name for each in trend.by], found.values, strict=True))
    return {
        "start": found.start,
        "values": values,
        "others": found.others,
        "count": found.count,
    }


def _in_short(summary: Summary, who: Principal) -> dict[str, Any]:
    first = summary.changes[0]
    tables: dict[str, dict[str, int]] = {}
    for each in summary.changes:
        of = tables.setdefault(f"{each.schema}.{each.table}", {})
        of[each.operation] = of.get(each.operation, 0) + 1
    shown = [showing.change(each, who) for each in summary.changes[:_SHOWN]]
    return {
        "transaction_id": first.transaction_id,
        "source": first.source,
        "database": first.database,
        "committed_at": first.committed_at,
        "commit_position": first.commit_position,
        "count": len(summary.changes),
        "more": summary.more,
        "tables": tables,
        "context": shown[0].context,
        "changes": shown,
    }


def _bounded(trend: trends.Trend) -> trends.Trend:
    """With no more groups than there is room for. Raises `UsageError` for more than anybody looks
    at."""
    if trend.buckets > _MOST_BUCKETS:
        raise UsageError(
            f"in that range there are {trend.buckets:,} times a {trend.every}",
            fix=f"give a longer `every` or a later `since`: {_MOST_BUCKETS:,} are told",
        )
    most = _MOST_COUNTS // (trend.buckets + 1)
    if trend.by and trend.top is not None and trend.top > most:
        raise UsageError(
            f"in that range there are {trend.buckets:,} times a {trend.every}, each with"
            f" {trend.top:,} groups",
            fix=f"give a longer `every`, or a `top` of at most {most:,}",
        )
    return msgspec.structs.replace(trend, top=trend.top or most)
