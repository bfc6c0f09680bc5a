"""Gaps of single tables that the stream itself tells: changes left out by rule, rewrites by DDL."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.change import Skipped, Transaction
from bemi.store.checkpoint import Checkpoint
from bemi.store.versions import StoredVersion, rewritten

REMEMBERED: Final = 100_000
"""How many transactions back it is known which ones rules left changes out of. One that stays
open for longer may be one of them."""


def record_skipped(
    cursor: psycopg.Cursor[Any], schema: str, held: Checkpoint, skipped: Sequence[Skipped]
) -> None:
    """Widen each table's gap of changes that rules left out, so that it holds these too."""
    found: dict[int, list[Transaction]] = {}
    for each in skipped:
        found.setdefault(each.table.oid, []).append(each.transaction)
    for relation, transactions in found.items():
        _remember(cursor, schema, held, relation, {each.transaction_id for each in transactions})
        first, behind = int(transactions[0].commit_lsn), int(transactions[-1].commit_lsn) + 1
        count = len(transactions)
        cursor.execute(
            sql.SQL(
                "update {} set to_position = greatest(to_position, %s), changes = changes + %s, "
                "detected_at = now() where source_id = %s and epoch = %s and relation = %s "
                "and cause = 'ignored'"
            ).format(sql.Identifier(schema, "gaps")),
            [behind, count, held.source_id, held.epoch, relation],
        )
        if cursor.rowcount:
            continue
        cursor.execute(
            sql.SQL(
                "insert into {} (source_id, epoch, relation, from_position, to_position, cause, "
                "detail, changes, accepted_at) "
                "values (%s, %s, %s, %s, %s, 'ignored', 'left out by the rules', %s, now())"
            ).format(sql.Identifier(schema, "gaps")),
            [held.source_id, held.epoch, relation, first, behind, count],
        )


def record_rewrite(
    cursor: psycopg.Cursor[Any],
    schema: str,
    source_id: int,
    known: Sequence[StoredVersion],
    version: StoredVersion,
    *,
    since: int = 0,
) -> None:
    """Say which columns' older values may have been rewritten before a table's new version.

    Between the two readings of the catalog, in which that can be seen; not before `since`, where
    that is known.
    """
    # The stream may be behind what the catalog told already.
    older = [
        each
        for each in known
        if each.place[0] == version.place[0] and each.read_position <= version.place[1]
    ]
    if not older:
        return
    columns = rewritten(older[-1], version)
    if not columns:
        return
    cursor.execute(
        sql.SQL(
            "insert into {} (source_id, epoch, relation, from_position, to_position, cause, "
            "detail, columns, accepted_at) values (%s, %s, %s, %s, %s, 'rewrite', "
            "'altered; older values of these columns may have been rewritten', %s, now()) "
            "on conflict do nothing"
        ).format(sql.Identifier(schema, "gaps")),
        [
            source_id,
            version.place[0],
            version.relation,
            max(older[-1].read_position, since),
            max(version.read_position, version.place[1]),
            columns,
        ],
    )


def _remember(
    cursor: psycopg.Cursor[Any],
    schema: str,
    held: Checkpoint,
    relation: int,
    transactions: Collection[int],
) -> None:
    """Which transactions those were, the last ones; see `bemi.store.known_rows.left_out`."""
    left_out = sql.Identifier(schema, "left_out")
    cursor.execute(
        sql.SQL(
            "insert into {} (epoch, relation, transaction_id) select %s, %s, unnest(%s::bigint[]) "
            "on conflict do nothing"
        ).format(left_out),
        [held.epoch, relation, list(transactions)],
    )
    cursor.execute(
        sql.SQL("delete from {} where epoch = %s and relation = %s and transaction_id < %s").format(
            left_out
        ),
        [held.epoch, relation, max(transactions) - REMEMBERED],
    )
