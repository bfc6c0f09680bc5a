"""The log of who has read and done what through `bemi serve`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bemi.connections import first_line
from bemi.errors import SetupError
from bemi.store.people import Holder
from bemi.store.reader import JsonAsItIs


class Access(msgspec.Struct, frozen=True):
    """`action` as in `GET /api/v1/changes`; `asked`: its parameters."""

    id: int
    at: datetime
    actor: str
    kind: str
    address: str
    action: str
    asked: msgspec.Raw
    allowed: bool


def require_recordable(conn: psycopg.Connection[Any], schema: str) -> None:
    """Raises `SetupError` for a role that may not: it would get no answer at all."""
    # What may be done is looked at for no row, too.
    nothing = sql.SQL("insert into {} (actor) select null where false").format(
        sql.Identifier(schema, "accesses")
    )
    try:
        conn.execute(nothing)
    except psycopg.errors.InsufficientPrivilege as error:
        raise SetupError(
            "the role of the destination's URL can't record who reads the history:"
            f" {first_line(error)}",
            fix='grant it what the page on privileges has for "The web server"',
        ) from error


def record(
    conn: psycopg.Connection[Any],
    schema: str,
    who: Holder,
    *,
    address: str,
    action: str,
    asked: Mapping[str, Any],
    allowed: bool,
) -> None:
    """Committed when it returns, so that nothing is told that was not recorded."""
    conn.execute(
        sql.SQL(
            "insert into {} (person_id, token_id, actor, address, action, asked, allowed)"
            " values (%s, %s, %s, %s, %s, %s, %s)"
        ).format(sql.Identifier(schema, "accesses")),
        [
            who.id if who.kind == "person" else None,
            who.id if who.kind == "token" else None,
            who.name,
            address,
            action,
            Jsonb(asked),
            allowed,
        ],
    )


def read(
    conn: psycopg.Connection[Any], schema: str, *, behind: int | None, limit: int
) -> list[Access]:
    """The newest first; only those before the one with the number `behind`."""
    with conn.cursor(row_factory=class_row(Access)) as cursor:
        cursor.adapters.register_loader("jsonb", JsonAsItIs)
        return cursor.execute(
            sql.SQL(
                "select access_id as id, at, actor,"
                " case when token_id is null then 'person' else 'token' end as kind,"
                " address, action, asked, allowed from {}"
                " where access_id < coalesce(%s, 9223372036854775807)"
                " order by access_id desc limit %s"
            ).format(sql.Identifier(schema, "accesses")),
            [behind, limit],
        ).fetchall()


def forget(conn: psycopg.Connection[Any], schema: str, older_than: timedelta) -> int:
    """Deletes some of those that are older, and older than 30 days: how many; in the end none."""
    row = conn.execute(
        sql.SQL("select {}(%s)").format(sql.Identifier(schema, "forget_accesses")), [older_than]
    ).fetchone()
    assert row is not None
    return int(row[0])
