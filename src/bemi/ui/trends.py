"""Trends: how much happened when, by table, operation, user, or whatever a context says."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
import psycopg
from fastapi import APIRouter, Query, Request
from psycopg.errors import QueryCanceled
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from bemi import times
from bemi.api.access import Viewer
from bemi.api.asking import Counted, Text
from bemi.api.problems import answer
from bemi.api.serving import Served
from bemi.errors import UsageError
from bemi.history import trends
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters
from bemi.store.trends import Count
from bemi.ui import links, moment
from bemi.ui.chips import ADDABLE, chips, chosen, hidden
from bemi.ui.histogram import Histogram, drawn, hurried
from bemi.ui.rendering import iso, page
from bemi.ui.values import brief

router = APIRouter()

_TOP: Final = 8
_MOST_BARS: Final = 200
_RANGE: Final = timedelta(days=7)
_IN_LABELS: Final = 60
BY: Final = (
    ("table", "table"),
    ("operation", "operation"),
    ("user", "user"),
    ("source", "source"),
    ("context", "a key of the context"),
)
"""What the form offers; the last one takes a name."""
EVERY: Final = ("minute", "hour", "day", "week", "month")
_RANGES: Final = (("1h", "hour"), ("1d", "day"), ("7d", "7 days"), ("30d", "30 days"))


class Asked(Counted):
    """`whole`: from the first change on, instead of the last days. `own`: each chart has a scale of
    its own."""

    by: list[Text] = Field([], max_length=1)
    whole: bool = False
    own: bool = False
    moment: Text | None = None


class Part(msgspec.Struct, frozen=True):
    """One of what changes are counted by; `href` leads to all of its changes. `is_named`: it has a
    value, and is not what is left."""

    label: str
    href: str
    is_named: bool
    chart: Histogram


class Chart(msgspec.Struct, frozen=True):
    """`cells`: the same as a table, a line for each time in which
    there was something; `left_out`: there are others."""

    every: str
    parts: list[Part]
    cells: list[tuple[str, list[str]]]
    left_out: bool


@router.get("/trends")
def show(
    request: Request, who: Viewer, serving: Served, asked: Annotated[Asked, Query()]
) -> Response:
    query = request.query_params.multi_items()
    problem: UsageError | None = None
    found: Chart | None = None
    too_many = False
    by = asked.by[0] if asked.by else "table"
    try:
        dimension = asked.model_copy(update={"by": [by]}).dimensions(who)[0]
        filters = _ranged(moment.until(asked.filters(who), moment.read(asked.moment)), asked.whole)
        with serving.archive.connected() as conn:
            found = _chart(conn, serving.archive.schema, filters, dimension, asked, query)
    except UsageError as error:
        problem = error
    except QueryCanceled:
        too_many = True
    kept = links.without(query, "since", "until", "whole")
    return page(
        request,
        "trends.html",
        who,
        200 if problem is None else answer(problem).status_code,
        by=by if by in dict(BY) else "context",
        member=by.removeprefix("context.") if by.startswith("context.") else "",
        choices=BY,
        every=asked.every or "",
        units=EVERY,
        found=found,
        own=asked.own,
        scaled=links.url(
            "/trends",
            links.without(query, "own") if asked.own else [*query, ("own", "true")],
        ),
        too_many=too_many,
        problem=problem,
        chips=chips(query, "/trends"),
        addable=ADDABLE,
        hidden=hidden(query),
        ranges=[
            *(
                (words, links.url("/trends", [*kept, ("since", _since(text, asked.moment))]))
                for text, words in _RANGES
            ),
            ("all of it", links.url("/trends", [*kept, ("whole", "true")])),
        ],
        is_default=asked.since is None and not asked.whole,
        activity=links.url("/", chosen(query)),
        json=links.url(
            "/api/v1/stats",
            [*chosen(query), ("by", by), ("top", str(_TOP))],
        ),
    )


@router.get("/trends/by")
def choose(
    request: Request,
    _who: Viewer,
    what: Annotated[Literal["table", "operation", "user", "source", "context"], Query()],
    member: Annotated[Text, Query(max_length=200)] = "",
) -> Response:
    """The page that counts by `what`, of a context by its `member`."""
    kept = links.without(request.query_params.multi_items(), "what", "member", "by", "every")
    every = request.query_params.get("every", "")
    member = member.strip()
    if what == "context" and not member:
        raise UsageError("which key of the context is not said", fix="name one, such as endpoint")
    kept.append(("by", f"context.{member}" if what == "context" else what))
    if every:
        kept.append(("every", every))
    return RedirectResponse(links.url("/trends", kept), 303)


def _since(text: str, picked: str | None) -> str:
    """So long ago, or so long before the moment that was picked."""
    when = moment.moment_of(picked)
    if when is None:
        return text
    return iso(times.parse(text, now=when))


def _ranged(filters: Filters, whole: bool) -> Filters:
    if whole or filters.since is not None:
        return filters
    now = datetime.now(UTC)
    return replace(filters, since=min(filters.until or now, now) - _RANGE)


def _chart(
    conn: psycopg.Connection[Any],
    schema: str,
    filters: Filters,
    by: Dimension,
    asked: Asked,
    query: list[tuple[str, str]],
) -> Chart | None:
    """None where nothing happened. Raises `QueryCanceled` where it takes too long, and
    `UsageError`."""
    with hurried(conn):
        trend = trends.plan(
            conn,
            schema,
            filters,
            by=[by],
            every=asked.every,
            top=asked.top or _TOP,
            now=datetime.now(UTC),
        )
        if trend is None:
            return None
        if trend.buckets > _MOST_BARS:
            raise UsageError(
                f"that is {trend.buckets:,} bars, one for each {trend.every}",
                fix="choose a longer time for each bar, or look at a shorter time",
            )
        with closing(trends.counts(conn, schema, filters, trend)) as counted:
            several = [*counted]
    groups: dict[tuple[str | None, bool], list[Count]] = {}
    for each in several:
        groups.setdefault((each.values[0], each.others), []).append(each)
    if not groups:
        return None
    most = None if asked.own else max(each.count for each in several)
    parts = [
        _part(value, others, counts, by, trend, filters.until, most, query)
        for (value, others), counts in groups.items()
    ]
    lines = zip(*(part.chart.counted for part in parts), strict=True)
    several_lines = [(line[0][0], [number for _, number in line]) for line in lines]
    cells = [
        (word, [f"{number:,}" for number in numbers])
        for word, numbers in several_lines
        if any(numbers)
    ]
    return Chart(trend.every, parts, cells, len(cells) < len(several_lines))


def _part(
    value: str | None,
    others: bool,
    counts: Sequence[Count],
    by: Dimension,
    trend: trends.Trend,
    until: datetime | None,
    most: int | None,
    query: list[tuple[str, str]],
) -> Part:
    narrowed = None if value is None else _narrowed(query, by, value)
    chart = drawn(trend, until, counts, narrowed, most=most)
    if others:
        return Part("all others", "", False, chart)
    if value is None:
        return Part(f"without {brief(by.path[-1] if by.path else by.name, 40)}", "", False, chart)
    label = value.removeprefix("public.") if by.name == "table" else value
    if by.name == "operation":
        label = label.lower()
    if by.name == "user":
        label = f"user {value}"
    href = "" if narrowed is None else links.url("/", narrowed)
    return Part(brief(label, _IN_LABELS) or "empty", href, True, chart)


def _narrowed(
    query: list[tuple[str, str]], by: Dimension, value: str
) -> list[tuple[str, str]] | None:
    """The filters that let through what is counted here; None where there are none for it."""
    if len(value) > links.LONGEST:
        return None
    rest = chosen(query)
    if by.path:
        pair = ("context", f"{'.'.join(by.path)}={value}")
        return rest if pair in rest else [*rest, pair]
    if by.name == "operation":
        value = value.lower()
    return [*links.without(rest, by.name), (by.name, value)]
