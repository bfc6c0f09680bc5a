"""Turns a time into a position of a source's log; from there on everything goes by position.

So no transaction is ever split, though commit times do not rise in the order of the commits.
"""

from datetime import datetime
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import UnknownStateError
from bemi.lsn import Lsn
from bemi.times import spell

_DISORDER: Final = "10 seconds"
"""How far a commit's time may lie before that of one with a smaller position and still count:
the time is taken before the commit is written down, so disorder is as short as that takes."""


class Position(msgspec.Struct, frozen=True, order=True):
    """After all transactions of the source that commit at or before it."""

    epoch: int
    commit: Lsn


# What committed last by that time; or a table that was seen without rows, or began to be covered.
_RESOLVE: Final[LiteralString] = """
with ours as (
    select e.epoch from {epochs} e join {sources} s using (source_id) where s.name = %(source)s
),
last as (
    select r.committed_at from {changes} r
    where r.committed_at <= %(when)s and r.epoch in (select epoch from ours)
    order by r.committed_at desc limit 1
)
select epoch, position from (
    (select r.epoch, r.commit_position as position from {changes} r
    where r.committed_at <= %(when)s
        and r.committed_at >= (select committed_at from last) - %(disorder)s::interval
        and r.epoch in (select epoch from ours)
    order by r.epoch desc, r.commit_position desc limit 1)
    union all
    (select i.epoch, p.position
    from {intervals} i
    cross join lateral (select greatest(i.from_position,
        case when i.state_by = 'empty' then i.state_position end) as position) p
    where i.opened_at <= %(when)s and i.epoch in (select epoch from ours)
        and not exists (select from {changes} r
            where r.commit_position = p.position and r.epoch = i.epoch
                and r.committed_at > %(when)s)
    order by 1 desc, 2 desc limit 1)
) each
order by epoch desc, position desc limit 1
"""


def resolve(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    when: datetime,
    *,
    captured: datetime | None = None,
) -> Position:
    """The greatest position whose commit is at or before `when`.

    Until when all is captured is known by the last transaction that is stored; who has proof of
    more, because the history has reached a position that was written later, gives it as
    `captured`. Raises `UnknownStateError` for times beyond that, and before the history begins.
    """
    names = {
        "epochs": sql.Identifier(schema, "epochs"),
        "sources": sql.Identifier(schema, "sources"),
        "changes": sql.Identifier(schema, "row_changes"),
        "intervals": sql.Identifier(schema, "intervals"),
    }
    with conn.transaction():
        row = conn.execute(
            sql.SQL(
                "select k.committed_at, k.epoch, k.position from {} k join {} s using (source_id) "
                "where s.name = %s"
            ).format(sql.Identifier(schema, "checkpoints"), names["sources"]),
            [source],
        ).fetchone()
        if row is None:
            raise UnknownStateError(f"there is no source {source} in the history")
        committed_at, epoch, end = row
        until = max((each for each in (committed_at, captured) if each is not None), default=None)
        if until is None or when > until:
            told = "nothing is captured yet" if until is None else f"captured until {spell(until)}"
            raise UnknownStateError(
                f"what {source} was at {spell(when)} is not known yet: {told}",
                fix="ask for that time or an earlier one: later ones become known with the next"
                " transaction that is captured",
            )
        found = conn.execute(
            sql.SQL(_RESOLVE).format(**names),
            {"source": source, "when": when, "disorder": _DISORDER},
        ).fetchone()
    if found is None:
        raise UnknownStateError(
            f"the history of {source} begins after {spell(when)}", fix="ask for a later time"
        )
    resolved = Position(found[0], Lsn(found[1]))
    # An interval may begin behind what is stored: until then it says nothing.
    return min(resolved, Position(epoch, Lsn(end - 1)))
