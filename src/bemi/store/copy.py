"""Writes encoded rows into a table of the store."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from bemi.store.rows import COPY_HEADER, COPY_TRAILER


def copy_rows(
    cursor: psycopg.Cursor[Any],
    schema: str,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[bytes],
) -> None:
    """Copy encoded rows into a table of the store, in the cursor's transaction."""
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        sql.Identifier(schema, table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
    )
    with cursor.copy(statement) as copy:
        copy.write(b"".join((COPY_HEADER, *rows, COPY_TRAILER)))
