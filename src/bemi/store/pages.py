"""A page of changes by their context: looked for where it is likely to be, before all is asked.

What many contexts have is met soon on a walk along the feed. What few have is found by listing the
contexts: an id begins with the day on which its changes were committed, and is stored together with
all of them, so whole days of contexts have all that comes first. Either way is walked as it is
written, whatever the server knows of its tables, and ends after so many changes or contexts. Where
the page is not full by then, and that is not all, `query.compiled` answers alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from bemi.store.filters import Filters
from bemi.store.query import Among, compiled, conditions
from bemi.store.rows import DAY_BITS, context_day

_PAGE: Final = 1000
"""Changes, at most: they are taken at once."""

_LOOKED_AT: Final = 100
"""Of the contexts that come first. When a tenth of them is meant, that is many."""

_WALKED: Final = 2000
"""Changes along the feed: a few milliseconds."""

_LISTED: Final = 5000
"""Contexts, in all: a few milliseconds."""

_OF_A_DAY: Final = 1000
"""Contexts of the first day, whose changes are all looked up."""

_FOR_EACH: Final = 4
"""Contexts for each change of the page: the other filters may leave few of their changes."""

# For what few have: nothing is read whole because little is expected of it, nor compiled for longer
# than it takes. Each is planned for its own values.
_SETTINGS: Final = (
    "set local enable_seqscan = off; set local jit = off;"
    " set local max_parallel_workers_per_gather = 0"
)

_LOOK: Final[LiteralString] = """
select count(*) from (
    select context from {stretches} where {bounds} order by id {towards} limit {most}
) c where {where}"""

# By the index of contexts: for a limit of its own, it could walk along the ids instead.
_LIST: Final[LiteralString] = """
with found as materialized (select id from {stretches} where {bounds} and {where})
select id from found limit {most}"""

# What has an offset is joined as it is written: each context is looked up by its id. What comes in
# the order of days is sorted day by day, as far as it is taken.
_OF_CONTEXTS: Final[LiteralString] = """(
    select n.day, i.*, s.name as source
    from (select id, id >> {bits} as day from unnest(%s::bigint[]) id order by day {towards}) n
    cross join lateral (select * from {images} i where i.context_id = n.id offset 0) i
    left join {epochs} e on e.epoch = i.epoch
    left join {sources} s on s.source_id = e.source_id
) c"""


def page(
    cursor: psycopg.Cursor[Any], schema: str, filters: Filters, columns: Sequence[str]
) -> list[Any] | None:
    """The cursor's rows of what `query.compiled` selects; None where that is to be asked itself.

    `columns`: those that the filters ask for are among them.
    """
    if not _is_page(filters):
        return None
    conn = cursor.connection
    if _are_many(conn, schema, filters):
        among = _feed(schema, filters, columns)
        rows = cursor.execute(*compiled(schema, filters, columns, among)).fetchall()
        return rows if len(rows) == filters.limit else None
    # Rolled back, since a caller's transaction would keep the settings.
    with conn.transaction(force_rollback=True):
        conn.execute(_SETTINGS, prepare=False)
        contexts = _listed(conn, schema, filters)
        first = first_days(contexts, filters.limit or 0)
        rows = []
        if first:
            rest = replace(filters, context=(), trace=None)
            among = _changes_of(schema, filters, first)
            query = compiled(schema, rest, columns, among)
            rows = cursor.execute(*query, prepare=False).fetchall()
    return rows if first == contexts or len(rows) == filters.limit else None


def first_days(contexts: Sequence[int], changes: int) -> list[int]:
    """Whole days of the contexts, which are in the page's order: as many as a page of so many
    changes may need. None if there are too many contexts, in all or on the first day."""
    found: list[int] = []
    if len(contexts) > _LISTED:
        return found
    for _, day in groupby(contexts, lambda id: id >> DAY_BITS):
        of_day = [*day]
        if len(found) + len(of_day) > (changes * _FOR_EACH if found else _OF_A_DAY):
            break
        found += of_day
    return found


def _is_page(filters: Filters) -> bool:
    """By time, and where the context is what finds it: a key has few changes."""
    if filters.limit is None or filters.limit > _PAGE or filters.by_log:
        return False
    places = (filters.from_position, filters.to_position, filters.id, filters.within)
    if {filters.key, filters.transaction, *places} != {None}:
        return False
    return bool(filters.context) or filters.trace is not None


def _are_many(conn: psycopg.Connection[Any], schema: str, filters: Filters) -> bool:
    row = conn.execute(*_of_days(_LOOK, schema, filters, _LOOKED_AT)).fetchone()
    assert row is not None
    return int(row[0]) * 10 >= _LOOKED_AT


def _listed(conn: psycopg.Connection[Any], schema: str, filters: Filters) -> list[int]:
    """The ids of those that are meant, in the page's order; of one more than may be, any."""
    query = _of_days(_LIST, schema, filters, _LISTED + 1)
    rows = conn.execute(*query, prepare=False).fetchall()
    return sorted([id for (id,) in rows], reverse=not filters.oldest_first)


def _of_days(
    template: LiteralString, schema: str, filters: Filters, most: int
) -> tuple[sql.Composed, list[object]]:
    """Of the contexts of all days on which changes of the page may have been committed."""
    where, parameters = conditions(schema, Filters(context=filters.context, trace=filters.trace))
    behind = filters.behind.committed_at if filters.behind is not None else None
    since = [filters.since, behind if filters.oldest_first else None]
    until = [filters.until, None if filters.oldest_first else behind]
    bounds: list[LiteralString] = ["true"]
    ends: list[object] = []
    for at in since:
        if at is not None:
            bounds.append("id >= %s")
            ends.append(context_day(at) << DAY_BITS)
    for at in until:
        if at is not None:
            bounds.append("id <= %s")
            ends.append((context_day(at) + 1 << DAY_BITS) - 1)
    query = sql.SQL(template).format(
        stretches=sql.Identifier(schema, "stretches"),
        bounds=sql.SQL(" and ".join(bounds)),
        towards=_towards(filters),
        most=sql.Literal(most),
        where=where,
    )
    return query, [*ends, *parameters]


def _feed(schema: str, filters: Filters, columns: Sequence[str]) -> Among:
    first = Filters(
        since=filters.since,
        until=filters.until,
        behind=filters.behind,
        oldest_first=filters.oldest_first,
        limit=_WALKED,
    )
    query, parameters = compiled(schema, first, columns)
    return Among(sql.SQL("({}) c").format(query), parameters)


def _changes_of(schema: str, filters: Filters, contexts: list[int]) -> Among:
    relation = sql.SQL(_OF_CONTEXTS).format(
        bits=sql.Literal(DAY_BITS),
        towards=_towards(filters),
        images=sql.Identifier(schema, "images"),
        epochs=sql.Identifier(schema, "epochs"),
        sources=sql.Identifier(schema, "sources"),
    )
    return Among(relation, [contexts], order=("day",))


def _towards(filters: Filters) -> sql.SQL:
    return sql.SQL("asc" if filters.oldest_first else "desc")
