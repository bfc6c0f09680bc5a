"""The stretches in which a table's history is complete, and what ends them.

An interval is one of one table in one epoch: every change that commits from `from_position` on
and before `to_position` is in the history. While it is open it reaches to the checkpoint. Only
what was proven on the source is written here (see `bemi.capture.coverage`).
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bemi.lsn import Lsn


class Covered(msgspec.Struct, frozen=True):
    """A table that is published: its names as the history has them, its row in the publication.

    `table` is the one above a partition; `partition` is then the partition's own name.
    """

    relation: int
    membership: int
    schema: str
    table: str
    partition: str | None


class OpenInterval(msgspec.Struct, frozen=True):
    """A stretch that has not ended. `verified_position`: until there it was seen to hold."""

    interval_id: int
    epoch: int
    covered: Covered
    from_position: Lsn
    verified_position: Lsn
    state_position: Lsn | None


def read_open(
    conn: psycopg.Connection[Any], schema: str, source_id: int
) -> dict[int, OpenInterval]:
    """The open intervals of a source's tables, by relation."""
    rows = conn.execute(
        sql.SQL(
            'select interval_id, epoch, relation::bigint, membership::bigint, schema, "table", '
            "partition, from_position, verified_position, state_position "
            "from {} where source_id = %s and to_position is null"
        ).format(sql.Identifier(schema, "intervals")),
        [source_id],
    )
    return {
        relation: OpenInterval(
            interval_id,
            epoch,
            Covered(relation, membership, name, table, partition),
            Lsn(start),
            Lsn(verified),
            None if state is None else Lsn(state),
        )
        for (
            interval_id,
            epoch,
            relation,
            membership,
            name,
            table,
            partition,
            start,
            verified,
            state,
        ) in rows
    }


def open_interval(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    epoch: int,
    covered: Covered,
    *,
    position: Lsn,
    state: Lsn | None,
    opened: str,
) -> bool:
    """Begin an interval at `position`; whether there was no open one yet.

    The caller has proven that all transactions which commit from there on are captured whole.
    `state`: where the table was seen without rows, from where on its state is known as well.
    """
    row = conn.execute(
        sql.SQL(
            "insert into {} (source_id, epoch, relation, membership, schema, "
            '"table", partition, from_position, verified_position, state_position, state_by, '
            "opened) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
            "on conflict (source_id, relation) where to_position is null do nothing "
            "returning interval_id"
        ).format(sql.Identifier(schema, "intervals")),
        [
            source_id,
            epoch,
            covered.relation,
            covered.membership,
            covered.schema,
            covered.table,
            covered.partition,
            int(position),
            int(position),
            None if state is None else int(state),
            None if state is None else "empty",
            opened,
        ],
    ).fetchone()
    return row is not None


def close(
    conn: psycopg.Connection[Any], schema: str, interval: OpenInterval, cause: str, *, at: Lsn
) -> None:
    """End an interval at `at`, the last position that is proven."""
    conn.execute(
        sql.SQL(
            "update {} set to_position = greatest(%s, from_position), closed = %s, "
            "closed_at = now() where interval_id = %s and to_position is null"
        ).format(sql.Identifier(schema, "intervals")),
        [int(at), cause, interval.interval_id],
    )


def verify(
    conn: psycopg.Connection[Any], schema: str, intervals: Sequence[OpenInterval], position: Lsn
) -> None:
    """Note that these were seen to hold until `position`."""
    conn.execute(
        sql.SQL(
            "update {} set verified_position = %s "
            "where interval_id = any(%s) and to_position is null and verified_position < %s"
        ).format(sql.Identifier(schema, "intervals")),
        [int(position), [each.interval_id for each in intervals], int(position)],
    )


def rename(
    conn: psycopg.Connection[Any], schema: str, interval: OpenInterval, now: Covered
) -> None:
    """A table has another name by now, or was attached or detached; it is the same table."""
    conn.execute(
        sql.SQL(
            'update {} set schema = %s, "table" = %s, partition = %s where interval_id = %s'
        ).format(sql.Identifier(schema, "intervals")),
        [now.schema, now.table, now.partition, interval.interval_id],
    )


def split(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    *,
    at: Lsn,
    epoch: int,
    onward: Lsn,
    cause: str,
) -> None:
    """End all open intervals at `at`, and begin them again at `onward`, in `epoch`.

    For a gap of the whole source that was accepted: what the tables held behind it is unknown.
    In the caller's transaction.
    """
    conn.execute(
        sql.SQL(
            "with ended as (update {intervals} set to_position = greatest(%(at)s, from_position), "
            "closed = %(cause)s, closed_at = now() where source_id = %(source_id)s "
            "and to_position is null and not (epoch = %(epoch)s and from_position >= %(onward)s) "
            "returning *) "
            "insert into {intervals} (source_id, epoch, relation, membership, schema, "
            '"table", partition, from_position, verified_position, opened) '
            'select source_id, %(epoch)s, relation, membership, schema, "table", partition, '
            "%(onward)s, %(onward)s, %(cause)s from ended"
        ).format(intervals=sql.Identifier(schema, "intervals")),
        {
            "at": int(at),
            "cause": cause,
            "source_id": source_id,
            "epoch": epoch,
            "onward": int(onward),
        },
    )
