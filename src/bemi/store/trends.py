"""Counts changes by time, and by what else they have: rows of the destination's making, so that
no more is sent than is shown."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, LiteralString, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from bemi.store import hourly
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters
from bemi.store.query import compiled, conditions
from bemi.store.reader import require_clear_positions

Every: TypeAlias = Literal["minute", "hour", "day", "week", "month"]

_FETCH: Final = 1000

_TEXTS: Final = {
    "transaction": "transaction_id::text",
    "table": "schema || '.' || \"table\"",
    "operation": "operation",
    "source": "source",
}

# Groups are numbered by their sums, those behind `top` get one number together; each has a row in
# each bucket.
_COUNTS: Final[LiteralString] = """
with asked as (
    select %s::text as every, %s::timestamptz as since, %s::timestamptz as until, %s::bigint as top
),
counted as (
    select date_trunc((select every from asked), committed_at at time zone 'UTC') as start,
        {first} as first, {second} as second, {number}::bigint as n
    from {changes} where {condition}
    group by 1, 2, 3
),
summed as (
    select *, sum(n) over (partition by first, second) as total from counted
),
placed as (
    select start, first, second, n,
        dense_rank() over (order by total desc, first collate "C", second collate "C") as place
    from summed
),
kept as (
    select start, least(place, (select top from asked) + 1) as place, sum(n) as n
    from placed group by 1, 2
),
groups as ({groups})
select s.start, g.first, g.second, coalesce(k.n, 0)::bigint, g.others
from asked
cross join generate_series(
    date_trunc(every, since at time zone 'UTC'),
    greatest(until at time zone 'UTC', (select max(start) from counted)),
    ('1 ' || every)::interval
) s (start)
cross join groups g
left join kept k on k.start = s.start and k.place = g.place
order by s.start, g.place
"""
_GROUPS: Final[LiteralString] = """
select place, min(first) as first, min(second) as second, false as others from placed
where place <= coalesce((select top from asked), place) group by place
union all
select distinct (select top from asked) + 1, null::text, null::text, true from placed
where place > (select top from asked)
"""
_ONE: Final[LiteralString] = (
    "select 1::bigint as place, null::text as first, null::text as second, false as others"
)


class Count(msgspec.Struct, frozen=True):
    """How many changes there were from `start` on, of those that have these values.

    `values` are those of what is counted by, as texts, None where a change has none. `others`: of
    all groups together that are not among the largest.
    """

    start: datetime
    values: tuple[str | None, ...]
    count: int
    others: bool = False


def first_time(conn: psycopg.Connection[Any], schema: str, filters: Filters) -> datetime | None:
    """When the first of the changes was committed, or None where there are none."""
    require_clear_positions(conn, schema, filters)
    oldest = replace(filters, oldest_first=True, limit=1)
    row = conn.execute(*compiled(schema, oldest, ["committed_at"])).fetchone()
    return None if row is None else row[0]


def counts(
    conn: psycopg.Connection[Any],
    schema: str,
    filters: Filters,
    *,
    every: Every,
    by: Sequence[Dimension],
    since: datetime,
    until: datetime,
    top: int | None,
) -> Generator[Count]:
    """One for each bucket of time from `since` to `until` and each group, those without changes
    too: in the order of time, the largest groups first. Read as they are taken."""
    require_clear_positions(conn, schema, filters)
    query, given = counting(schema, filters, every=every, by=by, since=since, until=until, top=top)
    with conn.transaction(), conn.cursor("bemi_trends") as cursor:
        cursor.itersize = _FETCH
        cursor.execute(query, given)
        for start, *found, count, others in cursor:
            texts = tuple(found[: len(by)])
            yield Count(start.replace(tzinfo=UTC), texts, count, others)


def counting(
    schema: str,
    filters: Filters,
    *,
    every: Every,
    by: Sequence[Dimension],
    since: datetime,
    until: datetime,
    top: int | None,
) -> tuple[sql.Composed, list[object]]:
    """The SELECT of `counts`, with its parameters."""
    hours = hourly.relation(schema, filters, by, every)
    if hours is None:
        changes: sql.Composable = sql.Identifier(
            schema, "images" if _is_plain(filters, by) else "changes"
        )
        within: list[object] = []
    else:
        changes, within = hours
        filters = replace(filters, since=None, until=None)
    condition, required = conditions(schema, filters)
    values, parameters = zip(
        *(_value(each, counted=hours is not None) for each in (*by, None, None)[:2]), strict=True
    )
    query = sql.SQL(_COUNTS).format(
        first=values[0],
        second=values[1],
        number=sql.SQL("count(*)" if hours is None else "sum(n)"),
        changes=changes,
        condition=condition,
        groups=sql.SQL(_GROUPS if by else _ONE),
    )
    given = [every, since, until, top, *parameters[0], *parameters[1], *within, *required]
    return query, given


def _is_plain(filters: Filters, by: Sequence[Dimension]) -> bool:
    """Whether nothing is asked of contexts, transactions and sources: before PostgreSQL 16 a join
    to contexts that nothing needs stays in the plan, and may be made over all of them."""
    return all(each.name in ("table", "operation") for each in by) and not (
        filters.context
        or filters.trace is not None
        or filters.transaction is not None
        or filters.source is not None
        or filters.id is not None
    )


def _value(dimension: Dimension | None, *, counted: bool) -> tuple[sql.Composable, list[object]]:
    """As `Dimension.of` has it, as text, with its parameters."""
    if dimension is None:
        return sql.SQL("null::text"), []
    if counted and dimension.name == "user":
        return sql.SQL("user_id"), []
    if not dimension.path:
        return sql.SQL(_TEXTS[dimension.name]), []
    # A name may itself have dots in it.
    nested, name = list(dimension.path), ".".join(dimension.path)
    return sql.SQL("coalesce(context #>> %s::text[], context ->> %s::text)"), [nested, name]
