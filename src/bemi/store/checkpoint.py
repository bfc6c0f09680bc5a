"""How far a source's history is complete: read, claimed by a worker, moved by compare-and-set.

The checkpoint moves in the destination transaction that stores the rows before it, never
alone past rows, so that what it says is always true.
"""

from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import FencedError, SetupError
from bemi.lsn import Lsn
from bemi.store import notices, sources


class Checkpoint(msgspec.Struct, frozen=True):
    """Everything of the source that ends at or before `position` is in the history.

    `fence` is the number of the worker that claimed it; `next_context` counts the source's
    contexts; `committed_at` is the commit time of the last transaction stored.
    """

    source_id: int
    epoch: int
    position: Lsn
    fence: int
    next_context: int
    committed_at: datetime | None
    updated_at: datetime


class Epoch(msgspec.Struct, frozen=True):
    """A stretch of one source's WAL history."""

    epoch: int
    system_identifier: str
    timeline: int
    database_oid: int
    database: str


class StoredTransaction(msgspec.Struct, frozen=True):
    """What tells a transaction of the source from another one at the same place of another log.

    `xid` has the 32 bits that the stream gives; `committed_at` is in microseconds since
    2000-01-01 UTC.
    """

    commit_position: Lsn
    xid: int
    committed_at: int


_COLUMNS = sql.SQL(
    "c.source_id, c.epoch, c.position, c.fence, c.next_context, c.committed_at, c.updated_at"
)


def read(conn: psycopg.Connection[Any], schema: str, name: str) -> Checkpoint | None:
    """The checkpoint of the source called `name`, if it was registered."""
    row = conn.execute(
        sql.SQL("select {} from {} c join {} s using (source_id) where s.name = %s").format(
            _COLUMNS, sql.Identifier(schema, "checkpoints"), sql.Identifier(schema, "sources")
        ),
        [name],
    ).fetchone()
    return None if row is None else _checkpoint(row)


def read_epoch(conn: psycopg.Connection[Any], schema: str, epoch: int) -> Epoch:
    row = conn.execute(
        sql.SQL(
            "select epoch, system_identifier, timeline, database_oid, database "
            "from {} where epoch = %s"
        ).format(sql.Identifier(schema, "epochs")),
        [epoch],
    ).fetchone()
    if row is None:
        raise SetupError(f"epoch {epoch} is missing in the destination", fix="run `bemi init`")
    return Epoch(*row)


def last_transaction(
    conn: psycopg.Connection[Any], schema: str, held: Checkpoint, *, since: Lsn
) -> StoredTransaction | None:
    """The last one before the checkpoint that the source sent rows of, if it begins at `since`.

    Rows that a baseline stored lie at places where no transaction of theirs committed.
    """
    row = conn.execute(
        sql.SQL(
            "select r.commit_position, mod(c.transaction_id, 1::bigint << 32), "
            "(extract(epoch from r.committed_at - timestamptz '2000-01-01 00:00:00+00') "
            "* 1000000)::bigint "
            "from {} r join {} c on c.id = r.context_id "
            "where r.epoch = %s and r.commit_position >= %s and r.commit_position < %s "
            "and r.operation <> 'SNAPSHOT' and not coalesce('inferred' = any(r.flags), false) "
            "order by r.commit_position desc limit 1"
        ).format(sql.Identifier(schema, "row_changes"), sql.Identifier(schema, "contexts")),
        [held.epoch, int(since), int(held.position)],
    ).fetchone()
    return None if row is None else StoredTransaction(Lsn(row[0]), row[1], row[2])


def read_restored(conn: psycopg.Connection[Any], schema: str, held: Checkpoint) -> str | None:
    """Why the source was found to be an older copy of itself, while nobody has accepted that."""
    row = conn.execute(
        sql.SQL(
            "select detail from {} where source_id = %s and epoch = %s and from_position = %s "
            "and cause = 'restored' and accepted_at is null"
        ).format(sql.Identifier(schema, "gaps")),
        [held.source_id, held.epoch, int(held.position)],
    ).fetchone()
    return None if row is None else str(row[0])


def register(
    conn: psycopg.Connection[Any],
    schema: str,
    *,
    name: str,
    database: str,
    slot: str,
    publication: str,
    system_identifier: str,
    timeline: int,
    database_oid: int,
    position: Lsn,
) -> Checkpoint:
    """Make the source, its first epoch and its checkpoint where they are absent.

    A source that was registered keeps its checkpoint: history goes on where it was.
    """
    with conn.transaction():
        sources.declare(
            conn, schema, name=name, database=database, slot=slot, publication=publication
        )
        # The row is locked, so that two registrations make one epoch.
        row = conn.execute(
            sql.SQL("select source_id from {} where name = %s for update").format(
                sql.Identifier(schema, "sources")
            ),
            [name],
        ).fetchone()
        assert row is not None
        found = read(conn, schema, name)
        if found is None:
            source_id = row[0]
            begin_epoch(
                conn,
                schema,
                source_id,
                system_identifier=system_identifier,
                timeline=timeline,
                database_oid=database_oid,
                database=database,
                position=position,
            )
            found = read(conn, schema, name)
        assert found is not None
        return found


def begin_epoch(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    *,
    system_identifier: str,
    timeline: int,
    database_oid: int,
    database: str,
    position: Lsn,
) -> None:
    """Begin a new epoch at `position` and put the source's checkpoint there."""
    row = conn.execute(
        sql.SQL(
            "insert into {} (source_id, system_identifier, timeline, database_oid, database, "
            "started_position) values (%s, %s, %s, %s, %s, %s) returning epoch"
        ).format(sql.Identifier(schema, "epochs")),
        [source_id, system_identifier, timeline, database_oid, database, int(position)],
    ).fetchone()
    assert row is not None
    conn.execute(
        sql.SQL(
            "insert into {} as c (source_id, epoch, position) values (%s, %s, %s) "
            "on conflict (source_id) do update set epoch = excluded.epoch, "
            "position = excluded.position, captured_at = null, updated_at = clock_timestamp()"
        ).format(sql.Identifier(schema, "checkpoints")),
        [source_id, row[0], int(position)],
    )
    notices.tell(conn, schema)


def claim(conn: psycopg.Connection[Any], schema: str, source_id: int) -> Checkpoint:
    """Take the checkpoint over: from now on every other worker's `advance` fails.

    To be called by the worker that holds the slot. Waits for a transaction of the former
    holder that is about to commit, and so sees where that one left off.
    """
    row = conn.execute(
        sql.SQL("update {} c set fence = fence + 1 where source_id = %s returning {}").format(
            sql.Identifier(schema, "checkpoints"), _COLUMNS
        ),
        [source_id],
    ).fetchone()
    if row is None:
        raise SetupError("the source has no checkpoint in the destination", fix="run `bemi init`")
    return _checkpoint(row)


def advance(
    cursor: psycopg.Cursor[Any],
    schema: str,
    held: Checkpoint,
    *,
    position: Lsn,
    next_context: int | None = None,
    committed_at: int | None = None,
    earliest_at: int | None = None,
    captured_at: datetime | None = None,
) -> Checkpoint:
    """Move the checkpoint that this worker holds, in the transaction that stored the rows.

    Guarantees exactly once: raises `FencedError`, and the caller must roll back, unless the
    row is still just as this worker left it. `committed_at`: microseconds since 2000-01-01,
    of the last transaction; `earliest_at`: of the one whose clock was furthest behind.
    `captured_at`: until when all is captured up to `position`, if more is proven than by that.
    Who waits for changes is told with the commit.
    """
    cursor.execute(
        sql.SQL(
            "update {} c set position = %s, updated_at = clock_timestamp(), "
            "next_context = coalesce(%s, next_context), "
            "committed_at = coalesce(timestamptz '2000-01-01 00:00:00+00' "
            "+ %s::bigint * interval '1 microsecond', committed_at), "
            "uncounted_since = least(uncounted_since, timestamptz '2000-01-01 00:00:00+00' "
            "+ %s::bigint * interval '1 microsecond'), "
            "captured_at = greatest(captured_at, %s) "
            "where source_id = %s and fence = %s and position = %s and epoch = %s "
            "returning {}, pg_notify(%s, '')"
        ).format(sql.Identifier(schema, "checkpoints"), _COLUMNS),
        [
            int(position),
            next_context,
            committed_at,
            earliest_at,
            captured_at,
            held.source_id,
            held.fence,
            int(held.position),
            held.epoch,
            notices.channel(schema),
        ],
    )
    row = cursor.fetchone()
    if row is None:
        raise FencedError("another worker has taken over this source's checkpoint")
    return _checkpoint(row[:-1])


def record_gap(
    conn: psycopg.Connection[Any],
    schema: str,
    held: Checkpoint,
    *,
    to: Lsn,
    cause: str,
    detail: str,
    accepted: bool,
) -> None:
    """Write down that what lies between the checkpoint and `to` is missing; once."""
    conn.execute(
        sql.SQL(
            "insert into {} as g (source_id, epoch, from_position, to_position, cause, detail, "
            "accepted_at) values (%s, %s, %s, %s, %s, %s, case when %s then now() end) "
            "on conflict (source_id, epoch, from_position, to_position, cause, "
            "coalesce(relation, 0)) do update "
            "set accepted_at = coalesce(g.accepted_at, excluded.accepted_at)"
        ).format(sql.Identifier(schema, "gaps")),
        [
            held.source_id,
            held.epoch,
            int(held.position),
            int(to),
            cause,
            detail,
            accepted,
        ],
    )


def _checkpoint(row: tuple[Any, ...]) -> Checkpoint:
    source_id, epoch, position, fence, next_context, committed_at, updated_at = row
    return Checkpoint(
        source_id, epoch, Lsn(position), fence, next_context, committed_at, updated_at
    )
