"""The publication on the source: a list of tables, all kinds of changes, nothing filtered.

Anything else loses changes without a word (row filters, column lists, a subset of kinds) or
takes in tables whose updates PostgreSQL would then refuse (all tables, whole schemas), so a
publication of another kind is not ours.
https://www.postgresql.org/docs/current/sql-createpublication.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from bemi.connections import explained

_OPTIONS: Final[LiteralString] = (
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = false"
)
# Without stored generated columns, PostgreSQL 18 refuses updates of tables that have one and
# REPLICA IDENTITY FULL.
_OPTIONS_18: Final[LiteralString] = "publish_generated_columns = stored"


@dataclass(frozen=True, slots=True)
class Publication:
    name: str
    owner: str
    owned: bool
    """Whether the connection's role may change it."""
    faults: tuple[str, ...]
    """Why it is not ours; empty when it is."""
    fix: str | None
    """What makes it ours again, where one statement can."""
    generated: bool
    """Whether it publishes stored generated columns where it must (PostgreSQL 18)."""


def read(conn: psycopg.Connection[Any], name: str) -> Publication | None:
    """The publication of that name with its faults, or None where there is none."""
    version = conn.info.server_version
    with explained("source"):
        row = conn.execute(
            "select p.oid, p.pubowner::regrole::text, pg_has_role(p.pubowner, 'USAGE'),"
            " p.puballtables, p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate,"
            " p.pubviaroot, to_jsonb(p) ->> 'pubgencols'"
            " from pg_publication p where p.pubname = %s",
            [name],
        ).fetchone()
        if row is None:
            return None
        oid, owner, owned, all_tables, all_kinds, via_root, generated = row
        schemas: list[Any] = []
        filtered: list[Any] = []
        if version >= 150000:
            schemas = conn.execute(
                "select n.nspname from pg_publication_namespace p"
                " join pg_namespace n on n.oid = p.pnnspid where p.pnpubid = %s",
                [oid],
            ).fetchall()
            filtered = conn.execute(
                "select format('%%I.%%I', n.nspname, c.relname), r.prqual is not null"
                " from pg_publication_rel r join pg_class c on c.oid = r.prrelid"
                " join pg_namespace n on n.oid = c.relnamespace"
                " where r.prpubid = %s and (r.prqual is not null or r.prattrs is not null)"
                " order by 1",
                [oid],
            ).fetchall()
    faults = []
    if all_tables:
        faults.append("it is FOR ALL TABLES")
    if schemas:
        faults.append(f"it publishes whole schemas ({', '.join(row[0] for row in schemas)})")
    faults += [
        f"{table} has a {'row filter' if is_filter else 'column list'}"
        for table, is_filter in filtered
    ]
    options = not all_kinds or via_root
    if not all_kinds:
        faults.append("it leaves out some of insert, update, delete, truncate")
    if via_root:
        faults.append("it publishes partitions as their root (publish_via_partition_root)")
    only_options = options and not (all_tables or schemas or filtered)
    again = sql.SQL("alter publication {} set ({});").format(
        sql.Identifier(name), sql.SQL(_options(version))
    )
    fix = again.as_string(None) if only_options else None
    return Publication(name, owner, owned, tuple(faults), fix, generated in (None, "s"))


def create(conn: psycopg.Connection[Any], name: str) -> None:
    """Make it, with no tables yet. Raises psycopg's errors: the caller knows whose fault."""
    options = sql.SQL(_options(conn.info.server_version))
    conn.execute(sql.SQL("create publication {} with ({})").format(sql.Identifier(name), options))


def publish_generated(conn: psycopg.Connection[Any], name: str) -> None:
    """Let it publish stored generated columns: one made before PostgreSQL 18 does not."""
    statement = sql.SQL("alter publication {} set (publish_generated_columns = stored)")
    conn.execute(statement.format(sql.Identifier(name)))


def add(conn: psycopg.Connection[Any], name: str, tables: Sequence[sql.Identifier]) -> None:
    """Add tables; ONLY, since tables that inherit from one are each judged by themselves."""
    conn.execute(_add(name, tables))


def drop(conn: psycopg.Connection[Any], name: str) -> None:
    conn.execute(sql.SQL("drop publication {}").format(sql.Identifier(name)))


def add_statement(name: str, tables: Sequence[sql.Identifier]) -> str:
    """What an owner of the publication and of the tables runs to add them."""
    return _add(name, tables).as_string(None) + ";"


def drop_statement(name: str, table: sql.Identifier) -> str:
    """What takes one table out of it."""
    statement = sql.SQL("alter publication {} drop table only {};")
    return statement.format(sql.Identifier(name), table).as_string(None)


def create_statement(name: str, tables: Sequence[sql.Identifier], version: int) -> str:
    """What an owner of the tables runs, where Bemi's role may not create a publication."""
    listed = sql.SQL(", ").join(sql.SQL("only {}").format(table) for table in tables)
    target = sql.SQL(" for table ") + listed if tables else sql.SQL("")
    statement = sql.SQL("create publication {}{} with ({});").format(
        sql.Identifier(name), target, sql.SQL(_options(version))
    )
    return statement.as_string(None)


def _add(name: str, tables: Sequence[sql.Identifier]) -> sql.Composed:
    listed = sql.SQL(", ").join(sql.SQL("only {}").format(table) for table in tables)
    return sql.SQL("alter publication {} add table {}").format(sql.Identifier(name), listed)


def _options(version: int) -> LiteralString:
    return f"{_OPTIONS}, {_OPTIONS_18}" if version >= 180000 else _OPTIONS
