"""Who may be changing the source's tables just now, told by the locks that are held.

A transaction gives its locks back after it has left the list of those that run, so once a lock
is gone, what its holder did is visible to every later look. A transaction that is prepared
changes its name in the list of locks, but not its number.
https://www.postgresql.org/docs/current/view-pg-locks.html
"""

from typing import Any, Final

import msgspec
import psycopg

_WRITING: Final = (
    "RowExclusiveLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
"""What INSERT, UPDATE, DELETE, COPY and TRUNCATE take, and what may come with them."""

_ALTERING: Final = (
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
"""Whoever takes a table out of a publication, or drops or alters one of the two, holds one of
these until all others can see it."""

# The locks of ordinary tables are listed before the others: one that moves from the one list to
# the other while they are read is seen, if twice.
_HELD: Final = """
select l.locktype = 'object', l.relation::bigint, l.mode, l.virtualtransaction
from pg_locks l
where l.granted
    and l.database = (select oid from pg_database where datname = current_database())
    and (l.locktype = 'relation' and l.mode = any(%s) and l.relation >= 16384
        or l.locktype = 'object' and l.classid = 'pg_publication'::regclass)
"""

_PREPARED: Final = "-1/"
_XIDS: Final = 1 << 32


class Locks(msgspec.Struct, frozen=True):
    """One look. `horizon` is above the number of every transaction that had one by then."""

    writers: dict[int, frozenset[str]]
    """Of each table, the transactions that may have written to it, by their virtual numbers."""
    altering: frozenset[int]
    """Tables that somebody may be altering, or taking out of a publication."""
    publication: bool
    """Whether somebody may be altering a publication."""
    horizon: int


def look(conn: psycopg.Connection[Any]) -> Locks:
    """Needs no privilege; takes and waits for no lock that others want."""
    row = conn.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
    assert row is not None
    writers: dict[int, set[str]] = {}
    altering: set[int] = set()
    publication = False
    for is_object, relation, mode, transaction in conn.execute(
        _HELD, [list({*_WRITING, *_ALTERING})]
    ):
        if is_object:
            publication = True
            continue
        if mode in _WRITING:
            writers.setdefault(relation, set()).add(transaction)
        if mode in _ALTERING:
            altering.add(relation)
    return Locks(
        {relation: frozenset(found) for relation, found in writers.items()},
        frozenset(altering),
        publication,
        int(row[0]) % _XIDS,
    )


def still_writing(first: Locks, now: Locks, relation: int) -> bool:
    """Whether a transaction that may have written to a table at the first look has not ended."""
    before = first.writers.get(relation, frozenset())
    holders = now.writers.get(relation, frozenset())
    return bool(before & holders) or any(
        holder.startswith(_PREPARED)
        and _is_older(int(holder.removeprefix(_PREPARED)), first.horizon)
        for holder in holders
    )


def _is_older(transaction: int, horizon: int) -> bool:
    """Numbers of transactions go round."""
    return 0 < (horizon - transaction) % _XIDS < _XIDS // 2
