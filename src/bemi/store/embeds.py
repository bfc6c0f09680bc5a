"""Embeds: what an application may show its customers of the history, and by whose signature.

An embed's tables and columns are the most that any token for it can let somebody see.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from bemi.errors import UsageError
from bemi.store import reader
from bemi.store.scope import TELLING, split


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table, by its name, and its columns that may be told.

    `tenant`: the column that says whose a row is, told or not; None: each row is for everybody.
    `label`: a column whose value names a row in sentences.
    """

    table: str
    columns: tuple[str, ...]
    tenant: str | None
    label: str | None = None

    @property
    def parts(self) -> tuple[str, str]:
        return split(self.table)


class Embed(msgspec.Struct, frozen=True):
    id: int
    kid: str
    name: str
    source: str
    tables: tuple[Shown, ...]
    tenant_context: str | None
    context: tuple[str, ...]
    origins: tuple[str, ...]
    public_key: dict[str, str]
    seal: bytes
    created_by: str
    created_at: datetime
    revoked_at: datetime | None

    @property
    def takes_tenant(self) -> bool:
        return self.tenant_context is not None or any(each.tenant for each in self.tables)


_COLUMNS: Final = sql.SQL(
    "embed_id as id, kid, name, source, tables, tenant_context, context, origins, public_key, seal,"
    " created_by, created_at, revoked_at"
)


def embeds(conn: psycopg.Connection[Any], schema: str) -> list[Embed]:
    with conn.cursor(row_factory=kwargs_row(_embed)) as cursor:
        return cursor.execute(
            sql.SQL("select {} from {} order by embed_id").format(
                _COLUMNS, sql.Identifier(schema, "embeds")
            )
        ).fetchall()


def embed_of(conn: psycopg.Connection[Any], schema: str, kid: str) -> Embed | None:
    """One that was not revoked."""
    with conn.cursor(row_factory=kwargs_row(_embed)) as cursor:
        return cursor.execute(
            sql.SQL("select {} from {} where kid = %s and revoked_at is null").format(
                _COLUMNS, sql.Identifier(schema, "embeds")
            ),
            [kid],
        ).fetchone()


def has_origin(conn: psycopg.Connection[Any], schema: str, origin: str) -> bool:
    """Whether its pages may show any of the embeds."""
    row = conn.execute(
        sql.SQL(
            "select exists (select from {} where revoked_at is null and %s = any(origins))"
        ).format(sql.Identifier(schema, "embeds")),
        [origin],
    ).fetchone()
    assert row is not None
    return bool(row[0])


def add_embed(
    conn: psycopg.Connection[Any],
    schema: str,
    name: str,
    *,
    source: str | None,
    tables: Sequence[Shown],
    tenant_context: str | None,
    context: Sequence[str],
    origins: Sequence[str],
    public_key: dict[str, str],
    created_by: str,
) -> Embed:
    """Raises `UsageError` for what can't be meant. Without a `source` it is the only one."""
    _check(tables, context)
    with conn.cursor(row_factory=kwargs_row(_embed)) as cursor:
        made = cursor.execute(
            sql.SQL(
                "insert into {} (kid, name, source, tables, tenant_context, context, origins,"
                " public_key, seal, created_by)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning {}"
            ).format(sql.Identifier(schema, "embeds"), _COLUMNS),
            [
                secrets.token_hex(6),
                name,
                _source(conn, schema, source),
                Jsonb([msgspec.to_builtins(each) for each in tables]),
                tenant_context,
                [*context],
                [*dict.fromkeys(origins)],
                Jsonb(public_key),
                secrets.token_bytes(32),
                created_by,
            ],
        ).fetchone()
    assert made is not None
    return made


def revoke_embed(conn: psycopg.Connection[Any], schema: str, id: int) -> bool:
    """Whether there is one; from now on no token for it holds."""
    done = conn.execute(
        sql.SQL(
            "update {} set revoked_at = coalesce(revoked_at, now()) where embed_id = %s"
        ).format(sql.Identifier(schema, "embeds")),
        [id],
    )
    return done.rowcount > 0


def _embed(**columns: Any) -> Embed:
    read: dict[str, Any] = {
        "tables": msgspec.convert(columns["tables"], tuple[Shown, ...]),
        "context": tuple(columns["context"]),
        "origins": tuple(columns["origins"]),
    }
    return Embed(**{**columns, **read})


def _check(tables: Sequence[Shown], context: Sequence[str]) -> None:
    names = [each.parts for each in tables]
    for each in tables:
        if "*" in each.table or not all(each.parts):
            raise UsageError(
                f"{each.table!r} is not the name of one table",
                fix="name each table that customers may see, as in public.orders",
            )
        if names.count(each.parts) > 1:
            raise UsageError(f"the table {each.table} is there twice")
        if each.label is not None and each.label not in each.columns:
            raise UsageError(
                f"the label {each.label} of {each.table} is not among the columns that are told"
            )
    for member in TELLING.intersection(context):
        raise UsageError(f"{member} of a context may hold values of any table, and is never told")


def _source(conn: psycopg.Connection[Any], schema: str, source: str | None) -> str:
    """Never one that comes later."""
    names = reader.sources(conn, schema)
    if source is None and len(names) == 1:
        return names[0]
    if source not in names or source is None:
        raise UsageError(
            f"there is no source {source}" if source else "it is not clear of which source",
            fix=f"say one of: {', '.join(names) or 'none yet, so run `bemi init` first'}",
        )
    return source
