"""Lets a role read the history, and nothing that it does not need."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

READABLE: Final = (
    "changes",
    "coverage",
    "missing",
    "schema_history",
    "ddl",
    "definitions",
    "images",
    "stretches",
)
"""The views that `--reader` grants."""

ASKED: Final[Mapping[str, Sequence[str]]] = {
    "schema_versions": (),
    "sources": (),
    "epochs": (),
    "checkpoints": (),
    "gaps": (),
    "intervals": (),
    "baselines": (
        *("source_id", "baseline_id", "relation"),
        *("epoch", "interval_id", "last_position"),
        *("started_at", "finished_at", "rows", "failed"),
    ),
    "relation_names": (),
    "table_versions": (
        *("source_id", "epoch", "relation", "from_position", "from_ordinal", "read_position"),
        *("schema", "table", "partition", "columns", "primary_key", "told"),
        "replica_identity",
    ),
    "contexts": ("id", "dropped"),
    "counted": (),
    "hourly_counts": (),
    "hourly_users": (),
    "row_changes": ("epoch", "commit_position", "committed_at"),
}
"""What `bemi changes`, `status` and `at` read beside the views: bookkeeping, and of the tables with
values of rows these columns, which have none."""


def grant(conn: psycopg.Connection[Any], schema: str, role: str) -> bool:
    """Usage of the schema; the views, which read with their owner's rights; what commands ask.

    Whether anything of it was missing.
    """
    granted = {**dict.fromkeys(READABLE, ()), **ASKED}
    needed = [(name, column) for name, some in granted.items() for column in some or (None,)]
    row = conn.execute(
        "select has_schema_privilege(%(role)s, %(schema)s, 'usage') and bool_and(case when"
        " part is null then has_table_privilege(%(role)s, relation, 'select')"
        " else has_column_privilege(%(role)s, relation, part, 'select') end)"
        " from (select format('%%I.%%I', %(schema)s::text, name), part"
        " from unnest(%(names)s::text[], %(parts)s::text[]) needed (name, part))"
        " each (relation, part)",
        {
            "role": role,
            "schema": schema,
            "names": [name for name, _ in needed],
            "parts": [part for _, part in needed],
        },
    ).fetchone()
    if row is not None and row[0]:
        return False
    grantee = sql.Identifier(role)
    with conn.transaction():
        conn.execute(
            sql.SQL("grant usage on schema {} to {}").format(sql.Identifier(schema), grantee)
        )
        for name, some in granted.items():
            columns = sql.SQL(", ").join(map(sql.Identifier, some))
            conn.execute(
                sql.SQL("grant select {} on {} to {}").format(
                    sql.SQL("({})").format(columns) if some else sql.SQL(""),
                    sql.Identifier(schema, name),
                    grantee,
                )
            )
    return True


def missing(conn: psycopg.Connection[Any], roles: Sequence[str]) -> list[str]:
    """Those that there are not."""
    rows = conn.execute(
        "select role from unnest(%s::text[]) role where to_regrole(quote_ident(role)) is null",
        [list(roles)],
    )
    return [row[0] for row in rows]
