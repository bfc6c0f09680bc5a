"""How much happened when: the buckets of time that a question needs, and what is counted."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import psycopg

from bemi.errors import UsageError
from bemi.store import trends
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters
from bemi.store.trends import Count, Every

UNITS: Final[dict[Every, timedelta]] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30),
}
_MOST_BUCKETS: Final = 60
"""In how many a range is divided where nothing else is asked for."""
_MOST_DIMENSIONS: Final = 2


class Trend(msgspec.Struct, frozen=True):
    """What is counted: each `every` from `since` to `until`, in UTC, by what `by` says."""

    every: Every
    since: datetime
    until: datetime
    by: tuple[Dimension, ...]
    top: int | None

    @property
    def buckets(self) -> int:
        """About so many."""
        return (self.until - self.since) // UNITS[self.every] + 1


def check(filters: Filters, by: Sequence[Dimension], every: str | None, top: int | None) -> None:
    """Raises `UsageError` for what means nothing."""
    if filters.limit is not None or filters.behind is not None or filters.oldest_first:
        raise UsageError("counts have no pages and no other order", fix="leave out limit and order")
    if len(by) > _MOST_DIMENSIONS or len({each.name for each in by}) < len(by):
        raise UsageError(
            f"changes are counted by at most {_MOST_DIMENSIONS} different things, not by"
            f" {', '.join(each.name for each in by)}",
            fix="ask once for each",
        )
    if every is not None and every not in UNITS:
        raise UsageError(f"{every!r} is no time to count in: there are {', '.join(UNITS)}")
    if top is not None and (type(top) is not int or not 1 <= top < 1 << 63):
        raise UsageError(f"top: {top!r} is no number of groups", fix="it is at least 1")


def plan(
    conn: psycopg.Connection[Any],
    schema: str,
    filters: Filters,
    *,
    by: Sequence[Dimension] = (),
    every: Every | None = None,
    top: int | None = None,
    now: datetime,
) -> Trend | None:
    """From `since`, or the first change that there is, until `until`, or now. None where there is
    neither. Raises `UsageError`."""
    check(filters, by, every, top)
    since = filters.since or trends.first_time(conn, schema, filters)
    if since is None:
        return None
    # Of what is to come nothing is known, so it is not counted as nothing.
    until = max(since, min(filters.until or now, now))
    unit = every or _fitting(until - since)
    return Trend(unit, since.astimezone(UTC), until.astimezone(UTC), tuple(by), top)


def _fitting(span: timedelta) -> Every:
    """The shortest that does not make too many of it."""
    return next(
        (unit for unit, length in UNITS.items() if span < (_MOST_BUCKETS + 1) * length), "month"
    )


def counts(
    conn: psycopg.Connection[Any], schema: str, filters: Filters, trend: Trend
) -> Generator[Count]:
    return trends.counts(
        conn,
        schema,
        filters,
        every=trend.every,
        by=trend.by,
        since=trend.since,
        until=trend.until,
        top=trend.top,
    )


def stats(
    conn: psycopg.Connection[Any],
    schema: str,
    filters: Filters,
    by: Sequence[Dimension],
    every: Every | None,
    top: int | None,
) -> Iterator[Count]:
    trend = plan(conn, schema, filters, by=by, every=every, top=top, now=datetime.now(UTC))
    if trend is not None:
        with closing(counts(conn, schema, filters, trend)) as found:
            yield from found
