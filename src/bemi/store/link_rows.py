"""Lets the destination compare each change with the one before it of the same key, and reads those
that do not fit. What they mean is for `bemi.store.links` to judge.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.store.links import Event, Link

BASELINE: Final = 1 << 31
"""In the ids of a baseline's contexts."""

_FETCH: Final = 2000


class Scope(msgspec.Struct, frozen=True):
    """What is looked at: changes committed in this time, of these tables; None: all."""

    since: datetime | None = None
    until: datetime | None = None
    relations: frozenset[int] | None = None


def read(
    conn: psycopg.Connection[Any],
    tables: Mapping[str, sql.Identifier],
    *,
    epochs: Sequence[int],
    end: tuple[int, int],
    names: Sequence[str],
    relations: Sequence[int],
    low: str | None,
    high: str | None,
    scope: Scope,
) -> Iterator[Link]:
    """The links of these tables that do not fit, of keys from `low` on and below `high`.

    `end`: the present epoch and the checkpoint, behind which nothing counts.
    """
    parameters = {
        "names": list(names),
        "relations": list(relations),
        "low": low,
        "high": high,
        "epochs": epochs,
        "epoch": end[0],
        "position": end[1],
        "baseline": BASELINE,
        "since": scope.since,
        "until": scope.until,
    }
    query = sql.SQL(_LINKS).format(
        **tables,
        of=_among("relation", relations),
        new=_within("primary_key", low, high),
        old=_within("previous_key", low, high),
        touched=sql.SQL(_TOUCHED).format(**tables) if scope.since else sql.SQL(""),
        new_touched=_touched("primary_key", scope),
        old_touched=_touched("previous_key", scope),
        when=_when(scope),
    )
    with conn.transaction(), conn.cursor("bemi_chain") as cursor:
        conn.execute("set local work_mem = '64MB'; set local jit = off")
        cursor.itersize = _FETCH
        cursor.execute(query, parameters)
        for relation, epoch, problem, columns, now_ambiguous, was_ambiguous, *rest in cursor:
            now, last = rest[:6], rest[6:]
            yield Link(
                relation,
                epoch,
                problem,
                _event(now, now_ambiguous),
                None if last[0] is None else _event(last, was_ambiguous),
                tuple(columns or ()),
            )


def _event(columns: Sequence[Any], ambiguous: bool | None) -> Event:
    change, position, ordinal, flags, transaction, rules = columns
    return Event(
        str(change),
        position,
        ordinal,
        transaction or 0,
        rules,
        frozenset(flags or ()),
        bool(ambiguous),
    )


def _among(column: LiteralString, relations: Sequence[int]) -> sql.Composable:
    if len(relations) == 1:
        return sql.SQL("{} = (%(relations)s::oid[])[1]").format(sql.Identifier(column))
    return sql.SQL("{} = any(%(relations)s::oid[])").format(sql.Identifier(column))


def _within(column: LiteralString, low: str | None, high: str | None) -> sql.Composable:
    parts: list[LiteralString] = ["{0} is not null"]
    if low is not None:
        parts.append("{0} >= %(low)s")
    if high is not None:
        parts.append("{0} < %(high)s")
    return sql.SQL(" and ".join(parts)).format(sql.Identifier(column))


def _touched(column: LiteralString, scope: Scope) -> sql.Composable:
    if scope.since is None:
        return sql.SQL("")
    return sql.SQL("and {} in (select key from touched)").format(sql.Identifier(column))


def _when(scope: Scope) -> sql.Composable:
    parts: list[LiteralString] = []
    if scope.since is not None:
        parts.append("and x.committed_at >= %(since)s")
    if scope.until is not None:
        parts.append("and x.committed_at <= %(until)s")
    return sql.SQL(" ").join(map(sql.SQL, parts))


_TOUCHED: Final[LiteralString] = """
touched as materialized (
    select primary_key as key from {row_changes}
    where "table" = any(%(names)s) and committed_at >= %(since)s and primary_key is not null
    union
    select previous_key from {row_changes}
    where "table" = any(%(names)s) and committed_at >= %(since)s and previous_key is not null
),
"""

# Every change as a link of its key's chain; one that moves a row to another key, as one of both.
# `image` is what a change says the row was, `after` what it leaves.
_LINKS: Final[LiteralString] = """
with {touched}
events as (
    select relation, epoch, primary_key as key, commit_position, ordinal, committed_at, id,
        context_id, flags, before, changed, after,
        case
            when context_id & %(baseline)s <> 0 or operation = 'SNAPSHOT'
                then case operation when 'DELETE' then 'ended' else 'stated' end
            when operation = 'CREATE' then 'created'
            when operation = 'DELETE' then 'deleted'
            when previous_key is null then 'updated'
            else 'arrived'
        end as kind
    from {row_changes}
    where "table" = any(%(names)s) and {of} and {new} and epoch = any(%(epochs)s)
        and (epoch <> %(epoch)s or commit_position < %(position)s) {new_touched}
    union all
    select relation, epoch, previous_key, commit_position, ordinal, committed_at, id,
        context_id, flags, before, changed, after, 'left'
    from {row_changes}
    where "table" = any(%(names)s) and {of} and {old} and epoch = any(%(epochs)s)
        and (epoch <> %(epoch)s or commit_position < %(position)s) {old_touched}
        and operation = 'UPDATE' and context_id & %(baseline)s = 0
),
linked as (
    select *, lag(kind) over w as last_kind, lag(after) over w as last_after
    from events
    window w as (partition by relation, epoch, key order by commit_position, ordinal)
),
marked as (
    select *,
        bool_or(
            kind in ('created', 'arrived')
            and last_kind in ('created', 'arrived', 'updated', 'stated')
        ) over t and bool_or(kind in ('deleted', 'left')) over t as ambiguous,
        -- Not all of a row may be known of it.
        coalesce(before, after || changed) <> last_after as differs
    from linked
    window t as (partition by relation, epoch, key, commit_position)
),
known as (
    select *,
        lag(id) over w as last_id, lag(commit_position) over w as last_position,
        lag(ordinal) over w as last_ordinal, lag(flags) over w as last_flags,
        lag(context_id) over w as last_context, lag(ambiguous) over w as last_ambiguous
    from marked
    window w as (partition by relation, epoch, key order by commit_position, ordinal)
),
judged as (
    select x.*,
        case
            when kind in ('created', 'arrived') then
                case when last_kind in ('created', 'arrived', 'updated', 'stated') then 'living' end
            when kind in ('updated', 'deleted', 'left') then case
                when last_kind is null then 'never'
                when last_kind in ('deleted', 'left', 'ended') then 'dead'
                when differs then 'differs'
            end
        end as problem
    from known x
    where kind not in ('stated', 'ended') {when}
)
select j.relation::bigint, j.epoch, j.problem, d.columns, j.ambiguous, j.last_ambiguous,
    j.id, j.commit_position, j.ordinal, j.flags, c.transaction_id, c.rules,
    j.last_id, j.last_position, j.last_ordinal, j.last_flags, p.transaction_id, p.rules
from judged j
left join lateral (
    select array_agg(b.key order by b.key) as columns
    from jsonb_each(coalesce(j.before, j.after || j.changed)) b
    where j.problem = 'differs' and j.last_after ? b.key and j.last_after -> b.key <> b.value
) d on true
left join lateral (
    select transaction_id, rules from {contexts} where id = j.context_id limit 1
) c on true
left join lateral (
    select transaction_id, rules from {contexts} where id = j.last_context limit 1
) p on true
where j.problem is not null and (j.problem <> 'differs' or d.columns is not null)
"""
