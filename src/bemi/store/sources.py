"""What the destination remembers of each source: its slot and publication, and its setup.

The setup is what `init` was told and did: which tables were chosen (`schemas`, `tables`), and
how to set back each replica identity that it changed (`replica_identity`), and whether event
triggers record DDL (`ddl`). Beside it stands what operators decide while workers run: whether the
source is paused, or removed with its history kept.
"""

from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bemi.store.schema_version import current_version


class Setup(msgspec.Struct, frozen=True, omit_defaults=True):
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    replica_identity: dict[str, str] = msgspec.field(default_factory=dict)
    """Of each table whose identity `init` set to FULL, the SQL that sets it back."""
    ddl: bool = False
    """Whether event triggers were to record DDL."""
    snapshot: bool = False
    """Whether a worker takes the baselines of tables that are added later."""


class StoredSource(msgspec.Struct, frozen=True):
    source_id: int
    name: str
    database: str
    slot: str
    publication: str
    setup: Setup
    paused_at: datetime | None
    removed_at: datetime | None


Standing: TypeAlias = Literal["unknown", "active", "paused", "removed"]
"""Whether a source shall be captured; `unknown` is one that was not set up, or not wholly."""


def read(conn: psycopg.Connection[Any], schema: str, name: str) -> StoredSource | None:
    """The source called `name`; None also where there is no history yet."""
    return next((source for source in read_all(conn, schema) if source.name == name), None)


def read_all(conn: psycopg.Connection[Any], schema: str) -> list[StoredSource]:
    if current_version(conn, schema) == 0:
        return []
    rows = conn.execute(
        sql.SQL(
            # A schema that is still to be migrated does not have the last two columns.
            "select source_id, name, database, slot, publication, setup, "
            "(to_jsonb(s) ->> 'paused_at')::timestamptz, "
            "(to_jsonb(s) ->> 'removed_at')::timestamptz "
            "from {} s order by source_id"
        ).format(sql.Identifier(schema, "sources"))
    ).fetchall()
    return [
        StoredSource(
            source_id,
            source,
            database,
            slot,
            publication,
            msgspec.convert(setup, Setup),
            paused_at,
            removed_at,
        )
        for source_id, source, database, slot, publication, setup, paused_at, removed_at in rows
    ]


def twin(
    conn: psycopg.Connection[Any],
    schema: str,
    name: str,
    *,
    slot: str,
    publication: str,
    system_identifier: str | None,
    database_oid: int | None,
) -> StoredSource | None:
    """Another source that is captured with this slot of this server, or this publication of its
    database. Where the server is not known, it is taken to be the same.

    One that was removed has neither any more, and one whose setup was not finished no changes.
    """
    row = conn.execute(
        sql.SQL(
            "select s.name from {} s join {} using (source_id) join {} e using (epoch) "
            "where s.name <> %(name)s and to_jsonb(s) ->> 'removed_at' is null "
            "and e.system_identifier = coalesce(%(system)s::text, e.system_identifier) "
            "and (s.slot = %(slot)s or s.publication = %(publication)s "
            "and e.database_oid = coalesce(%(oid)s::bigint, e.database_oid)) "
            "order by s.source_id limit 1"
        ).format(
            sql.Identifier(schema, "sources"),
            sql.Identifier(schema, "checkpoints"),
            sql.Identifier(schema, "epochs"),
        ),
        {
            "name": name,
            "slot": slot,
            "publication": publication,
            "system": system_identifier,
            "oid": database_oid,
        },
    ).fetchone()
    return None if row is None else read(conn, schema, row[0])


def standing(conn: psycopg.Connection[Any], schema: str, name: str) -> Standing:
    """Whether the source called `name` shall be captured. One query, asked every few seconds."""
    try:
        row = conn.execute(
            sql.SQL(
                "select to_jsonb(s) ->> 'paused_at', to_jsonb(s) ->> 'removed_at' "
                "from {} s join {} using (source_id) where s.name = %s"
            ).format(sql.Identifier(schema, "sources"), sql.Identifier(schema, "checkpoints")),
            [name],
        ).fetchone()
    except psycopg.errors.UndefinedTable:
        return "unknown"
    if row is None:
        return "unknown"
    return "removed" if row[1] else "paused" if row[0] else "active"


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


def pause(conn: psycopg.Connection[Any], schema: str, name: str) -> bool:
    """Have workers leave the source alone until `resume`; whether it was not paused before."""
    return _set(conn, schema, name, "paused_at", to=sql.SQL("now()"))


def resume(conn: psycopg.Connection[Any], schema: str, name: str) -> bool:
    """Undo `pause`; whether it was paused."""
    return _set(conn, schema, name, "paused_at", to=sql.SQL("null"))


def remove(conn: psycopg.Connection[Any], schema: str, name: str) -> bool:
    """Have workers let the source go for good; its history stays. Whether it was there before."""
    return _set(conn, schema, name, "removed_at", to=sql.SQL("now()"))


def restore(conn: psycopg.Connection[Any], schema: str, name: str) -> bool:
    """Undo `remove`, once the source is set up again; whether it was removed."""
    return _set(conn, schema, name, "removed_at", to=sql.SQL("null"))


def _set(
    conn: psycopg.Connection[Any], schema: str, name: str, column: str, *, to: sql.SQL
) -> bool:
    made = conn.execute(
        sql.SQL(
            "update {} set {column} = {to} where name = %s "
            "and ({column} is null) is distinct from ({to} is null) returning source_id"
        ).format(sql.Identifier(schema, "sources"), column=sql.Identifier(column), to=to),
        [name],
    ).fetchone()
    return made is not None
