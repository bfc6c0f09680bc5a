"""What the destination remembers of each source: its slot and publication, and its setup.

The setup is what `init` was told and did: which tables were chosen (`schemas`, `tables`), and
how to set back each replica identity that it changed (`replica_identity`), and whether event
triggers record DDL (`ddl`).
"""

from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bemi.store.migrate import current_version


class Setup(msgspec.Struct, frozen=True, omit_defaults=True):
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    replica_identity: dict[str, str] = msgspec.field(default_factory=dict)
    """Of each table whose identity `init` set to FULL, the SQL that sets it back."""
    ddl: bool = False
    """Whether event triggers were to record DDL."""


class StoredSource(msgspec.Struct, frozen=True):
    source_id: int
    name: str
    database: str
    slot: str
    publication: str
    setup: Setup


def read(conn: psycopg.Connection[Any], schema: str, name: str) -> StoredSource | None:
    """The source called `name`; None also where there is no history yet."""
    return next((source for source in read_all(conn, schema) if source.name == name), None)


def read_all(conn: psycopg.Connection[Any], schema: str) -> list[StoredSource]:
    if current_version(conn, schema) == 0:
        return []
    rows = conn.execute(
        sql.SQL(
            "select source_id, name, database, slot, publication, setup from {} order by source_id"
        ).format(sql.Identifier(schema, "sources"))
    ).fetchall()
    return [
        StoredSource(source_id, source, database, slot, publication, msgspec.convert(setup, Setup))
        for source_id, source, database, slot, publication, setup in rows
    ]


def declare(
    conn: psycopg.Connection[Any],
    schema: str,
    *,
    name: str,
    database: str,
    slot: str,
    publication: str,
) -> bool:
    """Make the source's row where it is absent, before its slot is there; whether it was made."""
    made = conn.execute(
        sql.SQL(
            "insert into {} (name, database, slot, publication) values (%s, %s, %s, %s) "
            "on conflict (name) do nothing returning source_id"
        ).format(sql.Identifier(schema, "sources")),
        [name, database, slot, publication],
    ).fetchone()
    return made is not None


def remember(conn: psycopg.Connection[Any], schema: str, name: str, setup: Setup) -> None:
    """Keep what `init` was told and did."""
    conn.execute(
        sql.SQL("update {} set setup = %s where name = %s").format(
            sql.Identifier(schema, "sources")
        ),
        [Jsonb(msgspec.to_builtins(setup)), name],
    )
