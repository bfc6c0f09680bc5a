"""What each table's replica identity costs, and what the other one would.

FULL puts the whole old row into the log with each update and delete. Under DEFAULT the worker
looks it up in the history instead. Both are told from the source's own statistics, and from
lookups of some rows that the history has, timed now.
"""

import time
from datetime import datetime
from statistics import median
from typing import Final

import psycopg
from psycopg import sql

from bemi.capture.checks.finding import Connection, Servers, source_of
from bemi.capture.tables import LOCK_TIMEOUT_MS
from bemi.observed import Finding, Price
from bemi.store import checkpoint, images
from bemi.store.images import Wanted

CHECK: Final = "identity prices"

_SAMPLE: Final = 20
"""Rows that are looked up to time it."""

_LOGGED: Final = 6
"""Bytes of an old row in the log beside its columns: what is left there of its header."""

_STORED: Final = 28
"""And in the table: its header, and the pointer to it."""

_DAY: Final = 86_400.0

# Widths of what is stored in the row itself come from the planner's statistics, where the role
# may see all of them, else from the table's size; large values lie in another table. How full a
# single page is can't be told, so neither can the width of the rows in it. The counters begin with
# the last reset of the database's, or else with the server's own.
_TABLES: Final = """
with known as (
    select coalesce(d.stats_reset, b.stats_reset, pg_postmaster_start_time()) as since
    from pg_stat_database d, pg_stat_bgwriter b
    where d.datname = current_database()
)
select s.relid::bigint, known.since,
    extract(epoch from now() - known.since)::float8,
    s.n_tup_upd + s.n_tup_del,
    case when rows.number > 0 then
        coalesce(
            w.width + %(logged)s,
            case when heap.size > current_setting('block_size')::bigint then
                greatest(heap.size / rows.number - %(stored)s, 0) + %(logged)s
            when large.size > 0 then %(logged)s
            end
        ) + large.size / rows.number
    end::float8
from pg_stat_user_tables s
cross join known
join pg_class c on c.oid = s.relid
cross join lateral (
    select case when c.reltuples > 0 then c.reltuples else s.n_live_tup end::float8 as number
) rows
cross join lateral (select pg_relation_size(c.oid) as size) heap
cross join lateral (
    select coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) as size
) large
left join lateral (
    select sum(p.avg_width * (1 - p.null_frac))::float8 as width
    from pg_stats p
    where p.schemaname = s.schemaname and p.tablename = s.relname and not p.inherited
    having count(*) = (
        select count(*) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    )
) w on true
where s.relid = any(%(relations)s::oid[])
"""

_KEYS: Final = """
select r.relation::bigint, i.membership::bigint, r."table", r.primary_key
from {row_changes} r
join {intervals} i
    on i.source_id = %(source_id)s and i.relation = r.relation and i.to_position is null
where r.epoch = %(epoch)s and r.primary_key is not null
order by r.committed_at desc, r.commit_position desc, r.ordinal desc
limit %(limit)s
"""


def prices(servers: Servers) -> Finding:
    conn = source_of(servers)
    tables = {
        state.oid: state for state in servers.tables if state.wanted and state.identity != "none"
    }
    try:
        with conn.transaction():
            # A table's size is behind its lock.
            conn.execute("select set_config('lock_timeout', %s, true)", [str(LOCK_TIMEOUT_MS)])
            rows = conn.execute(
                _TABLES, {"logged": _LOGGED, "stored": _STORED, "relations": list(tables)}
            ).fetchall()
    except psycopg.errors.LockNotAvailable:
        return Finding(
            CHECK,
            "not checked",
            "not checked: another session keeps a table locked (ACCESS EXCLUSIVE)",
            "run it again when that has ended",
        )
    lookup = _lookup_seconds(servers)
    found = []
    since: datetime | None = None
    for relation, began, seconds, changes, width in rows:
        since = began
        if not changes or seconds <= 0:
            continue
        a_day = changes * _DAY / max(seconds, 1.0)
        found.append(
            Price(
                table=tables[relation].qualified,
                identity="full" if tables[relation].identity == "full" else "default",
                changes_a_day=a_day,
                row_bytes=width,
                full_wal_bytes_a_day=None if width is None else a_day * width,
                default_lookups_a_day=a_day,
                default_lookup_seconds_a_day=None if lookup is None else a_day * lookup,
            )
        )
    if not found or since is None:
        return Finding(
            CHECK,
            "ok",
            "no update or delete of a tracked table is counted yet, so neither replica identity"
            " has a price",
        )
    found.sort(key=lambda each: each.full_wal_bytes_a_day or 0.0, reverse=True)
    timed = "no row in the history to time a lookup of yet"
    if lookup is not None:
        timed = f"a lookup in the history takes {lookup * 1000:.2f} ms now"
    return Finding(
        CHECK,
        "ok",
        f"per table what REPLICA IDENTITY FULL adds to the log, or DEFAULT asks of the history:"
        f" by updates and deletes since {since:%Y-%m-%d %H:%M}; {timed}",
        figures=tuple(found),
    )


def _lookup_seconds(servers: Servers) -> float | None:
    """The median time of looking one row up, as the worker does; None where there is none.

    Of the rows that changed last, so that it is the time with the index at hand.
    """
    conn = servers.destination
    if conn is None:
        return None
    settings = servers.settings
    try:
        held = checkpoint.read(conn, settings.schema, settings.source)
        if held is None:
            return None
        rows = conn.execute(
            sql.SQL(_KEYS).format(
                row_changes=sql.Identifier(settings.schema, "row_changes"),
                intervals=sql.Identifier(settings.schema, "intervals"),
            ),
            {"source_id": held.source_id, "epoch": held.epoch, "limit": _SAMPLE},
        ).fetchall()
        times = [
            _time(conn, settings.schema, held, Wanted(relation, membership, (table,), key))
            for relation, membership, table, key in rows
        ]
    except psycopg.Error:
        return None  # a check of its own says why
    return median(times) if times else None


def _time(conn: Connection, schema: str, held: checkpoint.Checkpoint, wanted: Wanted) -> float:
    with conn.cursor() as cursor:
        began = time.perf_counter()
        images.trusted(cursor, schema, held.source_id, held.epoch, [wanted])
        return time.perf_counter() - began
