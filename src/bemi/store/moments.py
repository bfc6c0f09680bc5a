"""Gives positions of the history times: those of the changes next to them."""

from collections.abc import Mapping, Set
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from bemi.lsn import Lsn

DISORDER: Final = 10
"""Seconds that a commit's time may lie before that of one with a smaller position and still count:
the time is taken before the commit is written down, so disorder is as short as that takes."""

_NEAR: Final = 10_000
"""Changes of other epochs that are walked over to find one of the right one; beyond these a
position stays without a time."""


Place: TypeAlias = tuple[int, int]
"""Epoch and position."""


class Moment(msgspec.Struct, frozen=True):
    """A position of an epoch, and a time for it, where there is a change near enough.

    Of a beginning, the time of the first change at or after it; of an end, of the last one before
    it. So a stretch is never told longer than it is, and a gap never shorter.
    """

    epoch: int
    position: Lsn
    time: datetime | None


class Times(msgspec.Struct, frozen=True):
    """Times of places: of the first change there or after, of the last one before."""

    after: Mapping[Place, datetime]
    before: Mapping[Place, datetime]

    def start(self, epoch: int, position: int) -> Moment:
        return Moment(epoch, Lsn(position), self.after.get((epoch, position)))

    def end(self, epoch: int, position: int) -> Moment:
        return Moment(epoch, Lsn(position), self.before.get((epoch, position)))


def read(
    conn: psycopg.Connection[Any], schema: str, *, starts: Set[Place], ends: Set[Place]
) -> Times:
    return Times(
        after=_nearest(conn, schema, starts, after=True),
        before=_nearest(conn, schema, ends, after=False),
    )


def _nearest(
    conn: psycopg.Connection[Any], schema: str, places: Set[Place], *, after: bool
) -> dict[Place, datetime]:
    """The times of the changes next to these places, by the index on the commit position.

    In a history of several sources their positions mix; the walk is bounded.
    """
    towards = sql.SQL(">= p.position order by commit_position")
    if not after:
        towards = sql.SQL("< p.position order by commit_position desc")
    ordered = sorted(places)
    rows = conn.execute(
        sql.SQL(
            "select p.epoch, p.position, c.committed_at "
            "from unnest(%s::int[], %s::bigint[]) p (epoch, position) cross join lateral ("
            "select committed_at from (select epoch, committed_at from {} "
            "where commit_position {} limit %s) near "
            "where near.epoch = p.epoch limit 1) c"
        ).format(sql.Identifier(schema, "row_changes"), towards),
        [[epoch for epoch, _ in ordered], [int(position) for _, position in ordered], _NEAR],
    )
    return {(epoch, position): time for epoch, position, time in rows}
