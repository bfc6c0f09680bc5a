"""The sessions of somebody who is signed in, and their end."""

from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import class_row


class Session(msgspec.Struct, frozen=True):
    digest: bytes
    begun_at: datetime
    ends_at: datetime


def of_person(conn: psycopg.Connection[Any], schema: str, person_id: int) -> list[Session]:
    """Those that hold, the newest first."""
    with conn.cursor(row_factory=class_row(Session)) as cursor:
        return cursor.execute(
            sql.SQL(
                "select digest, created_at as begun_at, expires_at as ends_at from {}"
                " where person_id = %s and expires_at > now() order by created_at desc"
            ).format(sql.Identifier(schema, "sessions")),
            [person_id],
        ).fetchall()


def end_all(conn: psycopg.Connection[Any], schema: str, person_id: int) -> None:
    """And the links that were not used."""
    with conn.transaction():
        for table in ("sessions", "sign_in_links"):
            conn.execute(
                sql.SQL("delete from {} where person_id = %s").format(
                    sql.Identifier(schema, table)
                ),
                [person_id],
            )
