"""Brings the destination's schema to this version of Bemi: numbered SQL files, in order.

Each file runs once, in one transaction, under an advisory lock, with the schema in
`search_path`. A file that was changed after it ran is an error: history is not rewritten.
"""

import hashlib
import re
from importlib import resources
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import SetupError, StoreVersionError

_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")


class Migration(msgspec.Struct, frozen=True):
    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations of this version of Bemi, ascending, without a hole."""
    found = []
    for file in resources.files("bemi.store").joinpath("migrations").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def current_version(conn: psycopg.Connection[Any], schema: str) -> int:
    """The version of the destination's schema; 0 when there is none."""
    row = conn.execute(
        "select to_regclass(format('%%I.schema_versions', %s::text)) is not null", [schema]
    ).fetchone()
    if row is None or not row[0]:
        return 0
    versions = sql.SQL("select coalesce(max(version), 0) from {}").format(
        sql.Identifier(schema, "schema_versions")
    )
    row = conn.execute(versions).fetchone()
    return int(row[0]) if row else 0


def require_current(conn: psycopg.Connection[Any], schema: str) -> None:
    """Raises `SetupError` without a schema, `StoreVersionError` for another version's."""
    version = current_version(conn, schema)
    known = migrations()[-1].version
    if version == known:
        return
    if version == 0:
        raise SetupError(
            f'the destination has no schema "{schema}" of Bemi\'s', fix="run `bemi init`"
        )
    if version > known:
        raise _newer(schema, version, known)
    raise StoreVersionError(
        f'schema "{schema}" of the destination is at version {version}, '
        f"this Bemi writes version {known}",
        fix="run `bemi init`: it migrates the history that is there",
    )


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
            raise _newer(schema, version, known[-1].version)
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


def _newer(schema: str, version: int, known: int) -> StoreVersionError:
    return StoreVersionError(
        f'schema "{schema}" of the destination is at version {version}, '
        f"newer than this Bemi knows ({known})",
        fix="install the Bemi that made it, or a later one: pip install --upgrade 'bemi[worker]'",
    )
