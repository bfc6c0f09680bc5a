"""Brings the destination's schema to this version of Bemi: numbered SQL files, in order.

Each file runs once, in one transaction, under an advisory lock, with the schema in
`search_path`. A file that was changed after it ran is an error: history is not rewritten.
"""

from typing import Any

import psycopg
from psycopg import sql

from bemi.errors import StoreVersionError
from bemi.store.schema_version import Migration, current_version, migrations, newer


def migrate(conn: psycopg.Connection[Any], schema: str) -> list[int]:
    """Apply what is missing; the versions applied. Safe to run twice, and at the same time.

    Raises `StoreVersionError` when the schema is newer, or a file changed after it ran.
    """
    applied: list[int] = []
    known = migrations()
    with conn.transaction():
        conn.execute(
            "select pg_advisory_xact_lock(hashtextextended('bemi.migrate/' || %s, 0))", [schema]
        )
        version = current_version(conn, schema)
        if version > known[-1].version:
            raise newer(schema, version, known[-1].version)
        if version == 0:
            _create(conn, schema)
        _verify(conn, schema, known)
        conn.execute(sql.SQL("set local search_path to {}, pg_temp").format(sql.Identifier(schema)))
        for migration in known:
            if migration.version <= version:
                continue
            # No parameters: the file may hold several statements and percent signs.
            conn.execute(migration.text.encode())
            conn.execute(
                "insert into schema_versions (version, name, checksum) values (%s, %s, %s)",
                [migration.version, migration.name, migration.checksum],
            )
            applied.append(migration.version)
    return applied


def _create(conn: psycopg.Connection[Any], schema: str) -> None:
    # `create schema if not exists` asks for the right to create even when it exists.
    row = conn.execute("select to_regnamespace(quote_ident(%s)) is null", [schema]).fetchone()
    if row is None or row[0]:
        conn.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    conn.execute(
        sql.SQL(
            "create table {} (version int primary key, name text not null, "
            "checksum text not null, applied_at timestamptz not null default now())"
        ).format(sql.Identifier(schema, "schema_versions"))
    )


def _verify(conn: psycopg.Connection[Any], schema: str, known: list[Migration]) -> None:
    checksums = {migration.version: migration.checksum for migration in known}
    rows = conn.execute(
        sql.SQL("select version, name, checksum from {} order by version").format(
            sql.Identifier(schema, "schema_versions")
        )
    )
    for version, name, checksum in rows.fetchall():
        if checksums.get(version) != checksum:
            raise StoreVersionError(
                f'migration {version} ({name}) of schema "{schema}" is not the one '
                "this Bemi would have run",
                fix="use the released version of Bemi that made this schema, or a later one",
            )
