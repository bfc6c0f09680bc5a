"""How much happened when: bars that lead to the changes behind them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql
from psycopg.errors import QueryCanceled

from bemi.amounts import count
from bemi.history import trends
from bemi.store.filters import Filters
from bemi.store.trends import Count, Every
from bemi.ui import links
from bemi.ui.rendering import iso

HEIGHT: Final = 100
PATIENCE: Final = 5000
"""Milliseconds in which changes are counted: all of a long history take longer."""
_INSTANT: Final = timedelta(microseconds=1)
_INTO_THE_NEXT_MONTH: Final = timedelta(days=32)
_FORMS: Final[dict[Every, str]] = {
    "minute": "%Y-%m-%d %H:%M",
    "hour": "%Y-%m-%d %H:00",
    "day": "%Y-%m-%d",
    "week": "week of %Y-%m-%d",
    "month": "%Y-%m",
}


class Bar(msgspec.Struct, frozen=True):
    """`y` and `height` of `HEIGHT`; whatever there is can be seen. `said`: `3 changes, …`."""

    href: str
    said: str
    y: int
    height: int


class Histogram(msgspec.Struct, frozen=True):
    """`begin` and `end`: the first bar and the last, in words. Without bars nothing happened.
    `counted`: what each bar is of, and how many. `peak`: what the first of the highest is of."""

    bars: list[Bar] = []
    every: str = ""
    total: str = ""
    most: str = ""
    peak: str = ""
    peak_href: str = ""
    begin: str = ""
    end: str = ""
    counted: list[tuple[str, int]] = []


def histogram(
    conn: psycopg.Connection[Any],
    schema: str,
    filters: Filters,
    query: Iterable[tuple[str, str]],
) -> Histogram | None:
    """Of all changes that the filters let through, whatever page is looked at; None where they are
    too many to be counted while somebody waits. `query` is that of the page, on which each bar
    leads to its changes.
    """
    whole = replace(filters, limit=None, behind=None, oldest_first=False)
    try:
        with hurried(conn):
            trend = trends.plan(conn, schema, whole, now=datetime.now(UTC))
            if trend is None:
                return Histogram()
            with closing(trends.counts(conn, schema, whole, trend)) as counted:
                return drawn(trend, whole.until, [*counted], query)
    except QueryCanceled:
        return None


@contextmanager
def hurried(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Raises `QueryCanceled` for what is not counted while somebody waits."""
    with conn.transaction():
        conn.execute(sql.SQL("set local statement_timeout = {}").format(PATIENCE))
        yield


def drawn(
    trend: trends.Trend,
    until: datetime | None,
    counts: Sequence[Count],
    query: Iterable[tuple[str, str]] | None,
    *,
    most: int | None = None,
) -> Histogram:
    """What was asked for may begin and end in the middle of a bar. `most`: what the highest bar of
    all is of, where there are several histograms; without a `query` bars lead nowhere."""
    rest = links.without(query or (), "since", "until", "behind")
    highest = max(each.count for each in counts)
    most = highest if most is None else most
    bars = []
    for each in counts:
        height = -(-HEIGHT * each.count // max(most, 1))
        first = max(each.start, trend.since)
        last = _next(each.start, trend.every) - _INSTANT
        times = ("since", iso(first)), ("until", iso(last if until is None else min(last, until)))
        said = f"{count(each.count, 'change')}, {_word(each.start, trend.every)}"
        href = "" if query is None else links.url("/", [*rest, *times])
        bars.append(Bar(href, said, HEIGHT - height, height))
    top = next(at for at, each in enumerate(counts) if each.count == highest)
    return Histogram(
        bars,
        trend.every,
        count(sum(each.count for each in counts), "change"),
        f"{highest:,}",
        _word(counts[top].start, trend.every),
        bars[top].href,
        _word(counts[0].start, trend.every),
        _word(counts[-1].start, trend.every),
        [(_word(each.start, trend.every), each.count) for each in counts],
    )


def _next(start: datetime, every: Every) -> datetime:
    if every == "month":
        return (start + _INTO_THE_NEXT_MONTH).replace(day=1)
    return start + trends.UNITS[every]


def _word(start: datetime, every: Every) -> str:
    return start.strftime(_FORMS[every])
