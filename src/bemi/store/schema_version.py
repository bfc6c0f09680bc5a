"""Which version the destination's schema is of, and whether this Bemi can read it."""

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
        raise newer(schema, version, known)
    raise StoreVersionError(
        f'schema "{schema}" of the destination is at version {version}, '
        f"this Bemi writes version {known}",
        fix="run `bemi init`: it migrates the history that is there",
    )


def newer(schema: str, version: int, known: int) -> StoreVersionError:
    """The error of a schema that a later Bemi has made."""
    return StoreVersionError(
        f'schema "{schema}" of the destination is at version {version}, '
        f"newer than this Bemi knows ({known})",
        fix="install the Bemi that made it, or a later one: pip install --upgrade 'bemi[worker]'",
    )
