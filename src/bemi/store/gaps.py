"""Gaps of single tables that the stream itself tells: changes left out by rule, rewrites by DDL."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.change import Skipped, Transaction
from bemi.store.checkpoint import Checkpoint
from bemi.store.versions import StoredVersion, may_differ, rewritten

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

    Between the two readings of the catalog, in which that can be seen, in the order of which the
    `known` are; not before `since`, where that is known.
    """
    readings = [each for each in (*known, version) if each.place[0] == version.place[0]]
    # The stream may be behind what the catalog told already.
    older = [each for each in readings[:-1] if each.read_position <= version.place[1]]
    if not older:
        return
    begun = dict.fromkeys(rewritten(older[-1], version), older[-1].read_position)
    begun |= _rewritten_unseen(older, version)
    # Where several readings tell the same, it ends at the first one; the names of columns are those
    # of there.
    found: dict[tuple[int, int], list[str]] = {}
    for name, from_position in begun.items():
        seen = next(
            each
            for each in readings[len(older) :]
            if any(column.name == name for column in each.columns)
            and name not in rewritten(each, version)
        )
        to_position = max(seen.read_position, seen.place[1])
        found.setdefault((max(from_position, since), to_position), []).append(name)
    for (from_position, to_position), names in found.items():
        cursor.execute(
            sql.SQL(
                "insert into {} as g (source_id, epoch, relation, from_position, to_position, "
                "cause, detail, columns, accepted_at) values (%s, %s, %s, %s, %s, 'rewrite', "
                "'altered; older values of these columns may have been rewritten', %s, now()) "
                "on conflict (source_id, epoch, from_position, to_position, cause, "
                "coalesce(relation, 0)) do update set columns = g.columns || array("
                "select name from unnest(excluded.columns) name where name <> all (g.columns))"
            ).format(sql.Identifier(schema, "gaps")),
            [
                source_id,
                version.place[0],
                version.relation,
                from_position,
                to_position,
                names,
            ],
        )


def _rewritten_unseen(older: Sequence[StoredVersion], version: StoredVersion) -> dict[str, int]:
    """Columns that the last reading could not tell, as the stream was behind: what it called them
    was gone by then, or they had come while it had none of them. Each with the last reading before
    which could."""
    last = older[-1]
    known = {each.number for each in last.columns} | {each.name for each in last.columns}
    found = {}
    for column in version.columns:
        if not column.number or known & {column.number, column.name}:
            continue
        for before in reversed(older):
            was = next((each for each in before.columns if each.number == column.number), None)
            if was is None and before.attributes >= column.number:
                continue
            if may_differ(was, column, moved=before.filenode != version.filenode):
                found[column.name] = before.read_position
            break
    return found


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
