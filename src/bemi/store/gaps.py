"""Gaps of single tables that the stream itself tells: changes left out by rule, rewrites by DDL."""

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bemi.change import Skipped
from bemi.store.checkpoint import Checkpoint
from bemi.store.versions import StoredColumn, StoredVersion, rewritten


def record_skipped(
    cursor: psycopg.Cursor[Any], schema: str, held: Checkpoint, skipped: Sequence[Skipped]
) -> None:
    """Widen each table's gap of changes that rules left out, so that it holds these too."""
    found: dict[int, list[int]] = {}
    for each in skipped:
        found.setdefault(each.table.oid, []).append(int(each.transaction.commit_lsn))
    for relation, positions in found.items():
        first, behind, count = positions[0], positions[-1] + 1, len(positions)
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
    cursor: psycopg.Cursor[Any], schema: str, held: Checkpoint, version: StoredVersion
) -> None:
    """Say which columns' older values may have been rewritten between two versions of a table.

    From the last change before, whose values were still right, to the version's first change.
    """
    versions = sql.Identifier(schema, "table_versions")
    row = cursor.execute(
        sql.SQL(
            "select columns, filenode, from_position from {} where source_id = %s and epoch = %s "
            "and relation = %s and (from_position, from_ordinal) < (%s, %s) "
            "order by from_position desc, from_ordinal desc limit 1"
        ).format(versions),
        [held.source_id, held.epoch, version.relation, *version.place[1:]],
    ).fetchone()
    if row is None:
        return
    columns = rewritten(_as_version(version, row[0], row[1]), version)
    if not columns:
        return
    cursor.execute(
        sql.SQL(
            "insert into {gaps} (source_id, epoch, relation, from_position, to_position, cause, "
            "detail, columns, accepted_at) select %(source)s, %(epoch)s, %(relation)s, "
            'coalesce((select max(r.commit_position) from {changes} r where r."table" = %(table)s '
            "and r.relation = %(relation)s and r.epoch = %(epoch)s "
            "and r.commit_position < %(to)s), %(from)s), %(to)s, 'rewrite', "
            "'altered; older values of these columns may have been rewritten', %(columns)s, now() "
            "on conflict do nothing"
        ).format(
            gaps=sql.Identifier(schema, "gaps"), changes=sql.Identifier(schema, "row_changes")
        ),
        {
            "source": held.source_id,
            "epoch": held.epoch,
            "relation": version.relation,
            "table": version.table,
            "from": row[2],
            "to": version.place[1],
            "columns": columns,
        },
    )


def _as_version(like: StoredVersion, columns: Any, filenode: int) -> StoredVersion:
    return msgspec.structs.replace(
        like, columns=tuple(msgspec.convert(columns, list[StoredColumn])), filenode=filenode
    )
