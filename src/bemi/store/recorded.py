"""The intervals and gaps of a source as they are stored, for who only reads them."""

from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg import sql


class Interval(msgspec.Struct, frozen=True):
    interval_id: int
    epoch: int
    relation: int
    schema: str
    table: str
    partition: str | None
    from_position: int
    verified_position: int
    to_position: int | None
    state_position: int | None
    state_by: str | None
    opened: str
    closed: str | None
    opened_at: datetime
    closed_at: datetime | None


class Gap(msgspec.Struct, frozen=True):
    epoch: int
    relation: int | None
    from_position: int
    to_position: int
    cause: str
    detail: str
    columns: list[str] | None
    changes: int | None
    accepted_at: datetime | None


def intervals(conn: psycopg.Connection[Any], schema: str, source_id: int) -> list[Interval]:
    rows = conn.execute(
        sql.SQL(
            'select interval_id, epoch, relation::bigint, schema, "table", partition, '
            "from_position, verified_position, to_position, state_position, state_by, opened, "
            "closed, opened_at, closed_at from {} where source_id = %s "
            "order by epoch, from_position, interval_id"
        ).format(sql.Identifier(schema, "intervals")),
        [source_id],
    )
    return [Interval(*row) for row in rows]


def gaps(conn: psycopg.Connection[Any], schema: str, source_id: int) -> list[Gap]:
    rows = conn.execute(
        sql.SQL(
            "select epoch, relation::bigint, from_position, to_position, cause, detail, columns, "
            "changes, accepted_at from {} where source_id = %s "
            "order by epoch, from_position, gap_id"
        ).format(sql.Identifier(schema, "gaps")),
        [source_id],
    )
    return [Gap(*row) for row in rows]
