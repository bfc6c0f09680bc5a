"""Changes that were counted by the hour, and those that were not yet: charts of long times need not
read each change.

The worker counts what is stored, again and again, up to a position of each epoch's log. Who asks
adds what lies behind, and the parts of hours at both ends, so that the sums are always exact.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters

_HOUR: Final = timedelta(hours=1)
_TICK: Final = timedelta(microseconds=1)
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_END: Final = datetime.max.replace(tzinfo=UTC)

_OF_TABLES: Final = frozenset({"table", "operation", "source"})
_OF_USERS: Final = frozenset({"user", "source"})
_ASKED_OF_USERS: Final = frozenset({"since", "until", "source"})
_ASKED: Final = _ASKED_OF_USERS | {"table", "operation", "scope"}
_EMPTY: Final = {each.name: each.default for each in fields(Filters)}

# From where on, and up to where, whole hours are asked for; twice.
_CHANGES: Final[LiteralString] = """
(
    with uncounted as materialized (
        select s.name as source, e.epoch, coalesce(k.position, 0) as position,
            least(p.counting_since, p.uncounted_since) as since
        from {epochs} e join {sources} s using (source_id) join {checkpoints} p using (source_id)
        left join {counted} k on k.epoch = e.epoch
        where least(p.counting_since, p.uncounted_since) is not null
            and coalesce(k.position, 0) < 9223372036854775807
    )
    select h.hour as committed_at, s.name as source, {of_hours}, h.changes as n
    from {hourly} h join {epochs} e using (epoch) join {sources} s using (source_id)
    where h.hour >= %s and h.hour < %s
    union all
    select c.committed_at, u.source, {of_changes}, 1
    from uncounted u cross join lateral (
        select * from {images} c
        where c.epoch = u.epoch and c.commit_position >= u.position
            and c.committed_at >= u.since and c.committed_at >= %s and c.committed_at < %s
    ) c {contexts}
    {edges}
) changes
"""
_EDGE: Final[LiteralString] = """
    union all
    select c.committed_at, s.name, {of_changes}, 1
    from {images} c join {epochs} e using (epoch) join {sources} s using (source_id) {contexts}
    where c.committed_at >= %s and c.committed_at <= %s
"""
_OF_TABLE: Final[LiteralString] = '{0}.schema, {0}."table", {0}.operation'
_OF_USER: Final[LiteralString] = (
    "coalesce(x.context #>> '{user_id}', x.context ->> 'user_id') as user_id"
)
_CONTEXTS: Final[LiteralString] = "left join {stretches} x on x.id = c.context_id"


def count(conn: psycopg.Connection[Any], schema: str, source: str) -> None:
    """Count what is stored of a source and was not counted yet. In autocommit mode: what comes
    meanwhile is noted apart."""
    marked = conn.execute(
        sql.SQL("select {}(%s)").format(sql.Identifier(schema, "mark_uncounted")), [source]
    ).fetchone()
    if marked == (True,):
        conn.execute(
            sql.SQL("select {}(%s)").format(sql.Identifier(schema, "count_changes")), [source]
        )


def relation(
    schema: str, filters: Filters, by: Sequence[Dimension], every: str
) -> tuple[sql.Composed, list[object]] | None:
    """What stands for the changes in a count: `committed_at`, `source`, and `user_id` or `schema`,
    `table` and `operation`, of `n` changes each, and its parameters. None where the hours do not
    say enough. The filters' times are in it, their other conditions are not."""
    names = {each.name for each in by}
    asked = {name for name, value in _EMPTY.items() if getattr(filters, name) != value}
    of_users = "user" in names
    known, filtered = (_OF_USERS, _ASKED_OF_USERS) if of_users else (_OF_TABLES, _ASKED)
    if every == "minute" or not names <= known or not asked <= filtered:
        return None
    first = None if filters.since is None else _ceiling(filters.since)
    last = None if filters.until is None else _floor(filters.until)
    if first is not None and last is not None and first >= last:
        return None
    edges: list[tuple[datetime, datetime]] = []
    if filters.since is not None and first is not None:
        edges.append((filters.since, first - _TICK))
    if filters.until is not None and last is not None:
        edges.append((last, filters.until))
    named = {
        name: sql.Identifier(schema, name)
        for name in ("epochs", "sources", "checkpoints", "counted", "images")
    }
    named |= {
        "hourly": sql.Identifier(schema, "hourly_users" if of_users else "hourly_counts"),
    }
    parts = {
        "of_changes": sql.SQL(_OF_USER if of_users else _OF_TABLE.format("c")),
        "contexts": sql.SQL(_CONTEXTS if of_users else "").format(
            stretches=sql.Identifier(schema, "stretches")
        ),
    }
    query = sql.SQL(_CHANGES).format(
        **named,
        **parts,
        of_hours=sql.SQL("h.user_id" if of_users else _OF_TABLE.format("h")),
        edges=sql.SQL("").join(sql.SQL(_EDGE).format(**named, **parts) for _ in edges),
    )
    hours = [first or _BEGINNING, last or _END]
    return query, [*hours, *hours, *(each for edge in edges for each in edge)]


def _floor(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _ceiling(when: datetime) -> datetime:
    return _floor(when + _HOUR - _TICK)
