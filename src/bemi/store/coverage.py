"""The stretches in which a table's history is complete, and what ends them.

An interval is one of one table in one epoch: every change that commits from `from_position` on
and before `to_position` is in the history. While it is open it reaches to the checkpoint. Only
what was proven on the source is written here (see `bemi.capture.coverage`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bemi.lsn import Lsn
from bemi.rules import Rules
from bemi.store import shapes


class Naming(msgspec.Struct, frozen=True):
    """What a table is called in the history.

    `table` is the one above a partition; `partition` is then the partition's own name.
    """

    schema: str
    table: str
    partition: str | None


class Covered(msgspec.Struct, frozen=True):
    """A table that is published: its names as the history has them, its row in the publication."""

    relation: int
    membership: int
    schema: str
    table: str
    partition: str | None

    @property
    def naming(self) -> Naming:
        return Naming(self.schema, self.table, self.partition)


class RulesVersion(msgspec.Struct, frozen=True):
    """Rules, and from where on what was captured is stored under them."""

    position: Lsn
    digest: str
    rules: Rules


class Looked(msgspec.Struct, frozen=True):
    """The last look at the source that is known of.

    `stamp` stands for the publication as it was then, without its list of tables.
    """

    epoch: int
    position: Lsn
    stamp: str | None


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
    opened_at: datetime | None = None,
) -> bool:
    """Begin an interval at `position`; whether there was no open one yet.

    The caller has proven that all transactions which commit from there on are captured whole.
    `state`: where the table was seen without rows, from where on its state is known as well.
    `opened_at` is the source's time when it was behind both.
    """
    row = conn.execute(
        sql.SQL(
            "insert into {} (source_id, epoch, relation, membership, schema, "
            '"table", partition, from_position, verified_position, state_position, state_by, '
            "opened, opened_at) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now())) "
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
            opened_at,
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


def begin_anew(
    conn: psycopg.Connection[Any], schema: str, interval_id: int, *, at: Lsn, cause: str
) -> int | None:
    """End an open interval at `at` and begin the next one there, whose state is not known.

    So that a baseline tells the state again, where the one before does not any more. Nothing is
    missing in between. The next interval's id; None if it was not open, or did not begin before.
    """
    row = conn.execute(
        sql.SQL(
            "with ended as (update {intervals} set to_position = %(at)s, closed = %(cause)s, "
            "verified_position = greatest(verified_position, %(at)s), closed_at = now() "
            "where interval_id = %(id)s and to_position is null and from_position < %(at)s "
            "returning *) "
            "insert into {intervals} (source_id, epoch, relation, membership, schema, "
            '"table", partition, from_position, verified_position, state_position, state_by, '
            'opened) select source_id, epoch, relation, membership, schema, "table", partition, '
            "%(at)s, verified_position, case when state_position >= %(at)s then state_position "
            "end, case when state_position >= %(at)s then state_by end, %(cause)s from ended "
            "returning interval_id"
        ).format(intervals=sql.Identifier(schema, "intervals")),
        {"at": int(at), "cause": cause, "id": interval_id},
    ).fetchone()
    return None if row is None else int(row[0])


def split(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    *,
    at: Lsn,
    ended: int,
    epoch: int,
    onward: Lsn,
    cause: str,
    same_tables: bool,
) -> None:
    """End all open intervals of epoch `ended` at `at`, begin them again at `onward` in `epoch`.

    For a gap of the whole source that was accepted: what the tables held behind it is unknown.
    In the caller's transaction. That a table was published at `onward` is seen by its row in the
    publication, which the next look finds unchanged, or else ends the interval where it began.
    Without `same_tables`, when the server is another one, its OIDs prove nothing.
    """
    names = {
        name: sql.Identifier(schema, name) for name in ("intervals", "relation_names", "sources")
    }
    parameters = {
        "at": int(at),
        "cause": cause,
        "source_id": source_id,
        "ended": ended,
        "epoch": epoch,
        "onward": int(onward),
        "same_tables": same_tables,
    }
    conn.execute(
        sql.SQL(
            "update {intervals} set to_position = greatest(%(at)s, from_position) "
            "where source_id = %(source_id)s and epoch = %(ended)s and to_position > %(at)s"
        ).format(**names),
        parameters,
    )
    conn.execute(
        sql.SQL(
            "with ended as (update {intervals} set to_position = greatest(%(at)s, from_position), "
            "closed = %(cause)s, closed_at = now() where source_id = %(source_id)s "
            "and to_position is null and not (epoch = %(epoch)s and from_position >= %(onward)s) "
            "returning *) "
            "insert into {intervals} (source_id, epoch, relation, membership, schema, "
            '"table", partition, from_position, verified_position, opened) '
            'select source_id, %(epoch)s, relation, membership, schema, "table", partition, '
            "%(onward)s, %(onward)s, %(cause)s from ended where %(same_tables)s"
        ).format(**names),
        parameters,
    )
    if epoch == ended:
        return
    conn.execute(
        sql.SQL(
            "insert into {relation_names} (source_id, epoch, relation, from_position, schema, "
            '"table", partition) '
            'select source_id, %(epoch)s, relation, %(onward)s, schema, "table", partition '
            "from (select distinct on (relation) * from {relation_names} "
            "where source_id = %(source_id)s and epoch = %(ended)s "
            "order by relation, from_position desc) last "
            "where schema is not null and %(same_tables)s"
        ).format(**names),
        parameters,
    )


def read_names(
    conn: psycopg.Connection[Any], schema: str, source_id: int, epoch: int
) -> dict[int, Naming | None]:
    """What the tables were called when they were looked at last; None: it was dropped."""
    rows = conn.execute(
        sql.SQL(
            'select distinct on (relation) relation::bigint, schema, "table", partition '
            "from {} where source_id = %s and epoch = %s order by relation, from_position desc"
        ).format(sql.Identifier(schema, "relation_names")),
        [source_id, epoch],
    )
    return {
        relation: None if name is None else Naming(name, table, partition)
        for relation, name, table, partition in rows
    }


def write_names(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    epoch: int,
    names: Mapping[int, Naming | None],
    *,
    position: Lsn,
    after: Lsn | None,
) -> None:
    """At `position` these tables were seen to be called so; at `after` they were not yet."""
    with conn.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                "insert into {} as n (source_id, epoch, relation, from_position, after_position, "
                'schema, "table", partition) values (%s, %s, %s, %s, %s, %s, %s, %s) '
                "on conflict (source_id, epoch, relation, from_position) do nothing"
            ).format(sql.Identifier(schema, "relation_names")),
            [
                (
                    source_id,
                    epoch,
                    relation,
                    int(position),
                    None if after is None else int(after),
                    None if naming is None else naming.schema,
                    None if naming is None else naming.table,
                    None if naming is None else naming.partition,
                )
                for relation, naming in names.items()
            ],
        )


def read_looked(conn: psycopg.Connection[Any], schema: str, source_id: int) -> Looked | None:
    row = conn.execute(
        sql.SQL(
            "select looked_epoch, looked_position, publication_stamp from {} where source_id = %s"
        ).format(sql.Identifier(schema, "sources")),
        [source_id],
    ).fetchone()
    if row is None or row[0] is None:
        return None
    return Looked(row[0], Lsn(row[1]), row[2])


def write_looked(
    conn: psycopg.Connection[Any], schema: str, source_id: int, looked: Looked
) -> None:
    conn.execute(
        sql.SQL(
            "update {} set looked_epoch = %s, looked_position = %s, publication_stamp = %s "
            "where source_id = %s"
        ).format(sql.Identifier(schema, "sources")),
        [looked.epoch, int(looked.position), looked.stamp, source_id],
    )


def read_rules(
    conn: psycopg.Connection[Any], schema: str, source_id: int, epoch: int
) -> list[RulesVersion]:
    """The versions of the rules by their beginnings; those of earlier epochs at 0."""
    rows = conn.execute(
        sql.SQL(
            "select case when epoch < %s then 0 else from_position end, digest, rules "
            "from {} where source_id = %s and epoch <= %s order by rules_id"
        ).format(sql.Identifier(schema, "rules")),
        [epoch, source_id, epoch],
    )
    return [
        RulesVersion(Lsn(position), digest, msgspec.convert(rules, Rules))
        for position, digest, rules in rows
    ]


def forget_stamp(conn: psycopg.Connection[Any], schema: str, source: str) -> None:
    """The publication is about to be altered by Bemi itself, in a way that loses nothing."""
    conn.execute(
        sql.SQL("update {} set publication_stamp = null where name = %s").format(
            sql.Identifier(schema, "sources")
        ),
        [source],
    )


def part_keys(conn: psycopg.Connection[Any], schema: str, source_id: int) -> None:
    """End open intervals where the rows of their tables got other keys, and begin them again there.

    Nothing is missing, but rows are called by other keys from there on: what the table held is
    not known by these until a baseline tells it.
    """
    for interval_id, position in shapes.key_changes(conn, schema, source_id).items():
        begin_anew(conn, schema, interval_id, at=Lsn(position), cause="key_changed")
