"""Statements that changed a source's schema, as its event triggers told them."""

from typing import Any

import psycopg
from psycopg import sql

from bemi.change import Ddl
from bemi.store.checkpoint import Checkpoint


def insert(
    cursor: psycopg.Cursor[Any], schema: str, held: Checkpoint, ddl: Ddl, context_id: int
) -> None:
    """Keep a statement, in the transaction of the changes around it."""
    cursor.execute(
        sql.SQL(
            "insert into {} (source_id, epoch, commit_position, position, committed_at, "
            "context_id, tag, object_type, identity, relation, statement, detail) "
            "values (%s, %s, %s, %s, timestamptz '2000-01-01 00:00:00+00' "
            "+ %s::bigint * interval '1 microsecond', %s, %s, %s, %s, %s, %s, %s::jsonb)"
        ).format(sql.Identifier(schema, "ddl_messages")),
        [
            held.source_id,
            held.epoch,
            int(ddl.transaction.commit_lsn),
            ddl.lsn,
            ddl.transaction.committed_at,
            context_id,
            ddl.tag,
            ddl.object_type,
            ddl.identity,
            ddl.relation,
            ddl.statement,
            ddl.detail.decode(),
        ],
    )
