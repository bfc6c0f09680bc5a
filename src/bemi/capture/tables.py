"""Which tables the source has, which of them are wanted, and which can be tracked.

A table can be tracked when its identity is effective: PostgreSQL refuses the application's
own UPDATE and DELETE on a published table without one. Partitions are listed each by itself,
because they inherit no identity; they are wanted by their own name or by their root's.
https://www.postgresql.org/docs/current/logical-replication-publication.html
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from bemi.capture import publication
from bemi.config import Settings
from bemi.connections import explained, first_line
from bemi.store.sources import Setup

LOCK_TIMEOUT_MS: Final = 500
"""What adding a table may wait for: below deadlock_timeout (1 s), at which PostgreSQL cancels
an autovacuum that is in the way. The application's reads and writes are never in the way."""


@dataclass(frozen=True, slots=True)
class TableState:
    """One table of the source. `reason` says why it can't be tracked, `fix` is the SQL for it."""

    oid: int
    schema: str
    name: str
    root: str | None
    """The partitioned table above a partition, as `schema.table`."""
    published: bool
    wanted: bool
    owned: bool
    """Whether the connection's role may add it to a publication of its own."""
    identity: str
    """`primary key`, `index NAME`, `full` or `none`."""
    reason: str | None
    fix: str | None
    never_full: str | None
    """Why REPLICA IDENTITY FULL would not let it be tracked, if so."""

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class NewTables:
    """What `add_new_tables` did and found."""

    added: tuple[TableState, ...]
    untracked: tuple[TableState, ...]
    """Wanted, not published; each with its reason and, where there is one, its fix."""
    failing: tuple[TableState, ...]
    """Published, but their identity is gone: the application's UPDATE and DELETE fail."""
    unmatched: tuple[str, ...]
    """Rules that match nothing, each in a sentence."""


# The catalog's own test of an identity index: valid, unique, immediate, not partial
# (RelationGetIndexList in PostgreSQL's relcache.c). Schemas that hold a Bemi history are left
# out by what is in them: another Bemi's history in this database must not be captured either.
# The view pg_publication_tables would wait for the lock of each published table.
_SURVEY: Final[LiteralString] = """
select
    c.oid::bigint,
    n.nspname::text,
    c.relname::text,
    case when c.relispartition then rn.nspname || '.' || r.relname end,
    c.relpersistence = 'p' and exists (
        select from pg_publication p
        where p.pubname = %(publication)s and (p.puballtables or exists (
            select from pg_publication_rel m
            where m.prpubid = p.oid and (m.prrelid = c.oid
                or c.relispartition and m.prrelid in (select pg_partition_ancestors(c.oid)))
        ) or {in_schemas})
    ),
    pg_has_role(c.relowner, 'USAGE'),
    c.relpersistence = 'u',
    c.relreplident::text,
    pk.name,
    coalesce(pk.usable, false),
    pk.columns,
    ri.name,
    other.name,
    exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0
            and not a.attisdropped and a.attgenerated = 'v')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_class r on c.relispartition and r.oid = pg_partition_root(c.oid)
left join pg_namespace rn on rn.oid = r.relnamespace
left join lateral (
    select ic.relname::text as name,
        i.indisvalid and i.indimmediate as usable,
        (select array_agg(a.attname::text order by k.ordinality)
         from unnest(i.indkey::int2[]) with ordinality k (attnum, ordinality)
         join pg_attribute a on a.attnum = k.attnum and a.attrelid = c.oid
         where k.ordinality <= i.indnkeyatts) as columns
    from pg_index i join pg_class ic on ic.oid = i.indexrelid
    where i.indrelid = c.oid and i.indisprimary
) pk on true
left join lateral (
    select ic.relname::text as name
    from pg_index i join pg_class ic on ic.oid = i.indexrelid
    where i.indrelid = c.oid and i.indisreplident
        and i.indisvalid and i.indisunique and i.indimmediate and i.indpred is null
) ri on true
left join lateral (
    select ic.relname::text as name
    from pg_index i join pg_class ic on ic.oid = i.indexrelid
    where i.indrelid = c.oid and not i.indisprimary
        and i.indisvalid and i.indisunique and i.indimmediate
        and i.indpred is null and i.indexprs is null
        and not exists (
            select from unnest(i.indkey::int2[]) with ordinality k (attnum, ordinality)
            join pg_attribute a on a.attnum = k.attnum and a.attrelid = c.oid
            where k.ordinality <= i.indnkeyatts and not a.attnotnull
        )
    order by i.indnkeyatts, ic.relname
    limit 1
) other on true
where c.relkind = 'r'
    and c.relpersistence in ('p', 'u')
    and n.nspname !~ '^pg_'
    and n.nspname not in ('information_schema', %(schema)s)
    and not (
        exists (select from pg_class s where s.relnamespace = n.oid
                and s.relname = 'schema_versions' and s.relkind = 'r')
        and exists (select from pg_class s where s.relnamespace = n.oid
                    and s.relname = 'row_changes' and s.relkind = 'p')
        and exists (select from pg_class s where s.relnamespace = n.oid
                    and s.relname = 'checkpoints' and s.relkind = 'r')
    )
order by n.nspname, c.relname
"""

_IN_SCHEMAS: Final[LiteralString] = """exists (
            select from pg_publication_namespace s
            where s.pnpubid = p.oid and s.pnnspid in (n.oid, rn.oid)
        )"""
"""A publication of schemas is none of ours, but takes its tables' updates all the same."""


# Under the names that rules go by.
_COLUMNS: Final = """
select
    coalesce(rn.nspname, n.nspname)::text,
    coalesce(r.relname, c.relname)::text,
    coalesce(array_agg(distinct a.attname::text) filter (where a.attname is not null), '{}')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_class r on c.relispartition and r.oid = pg_partition_root(c.oid)
left join pg_namespace rn on rn.oid = r.relnamespace
left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.oid = any(%s::oid[])
group by 1, 2
"""


def survey(conn: psycopg.Connection[Any], settings: Settings) -> list[TableState]:
    """All ordinary tables and leaf partitions outside the system's schemas and Bemi's own.

    Needs no privilege but to connect: the catalog is open to every role. Waits for no lock.
    """
    in_schemas = _IN_SCHEMAS if conn.info.server_version >= 150000 else "false"
    with explained("source"):
        rows = conn.execute(
            _SURVEY.format(in_schemas=in_schemas),
            {"publication": settings.publication, "schema": settings.schema},
        ).fetchall()
    return [_state(row, settings) for row in rows]


def matches(state_name: str, root: str | None, settings: Settings) -> bool:
    """Whether the rules of the settings want a table; without rules all are wanted."""
    names = [state_name] if root is None else [state_name, root]
    if any(fnmatchcase(name, glob) for name in names for glob in settings.exclude_tables):
        return False
    if not settings.schemas and not settings.tables:
        return True
    return any(
        any(fnmatchcase(name, glob) for glob in settings.tables)
        or any(fnmatchcase(name.split(".", 1)[0], glob) for glob in settings.schemas)
        for name in names
    )


def unmatched_rules(
    conn: psycopg.Connection[Any], settings: Settings, states: Sequence[TableState]
) -> tuple[str, ...]:
    """The rules that match nothing of the tables that are tracked, or can be; see `Rules`."""
    if not settings.rules:
        return ()
    tracked = [
        state.oid for state in states if state.published or (state.wanted and state.reason is None)
    ]
    with explained("source"):
        rows = conn.execute(_COLUMNS, [tracked]).fetchall()
    return tuple(settings.rules.unmatched(rows))


def with_remembered_rules(settings: Settings, setup: Setup | None) -> Settings:
    """The rules of the settings; where they name none, those that `init` was given as flags.

    Without this, a worker would add all the tables that `init --table` left out.
    """
    if setup is None or settings.schemas or settings.tables:
        return settings
    return replace(settings, schemas=setup.schemas, tables=setup.tables)


def add_new_tables(conn: psycopg.Connection[Any], settings: Settings) -> NewTables:
    """Add tables that were created since to the publication, where `new_tables` and the role let.

    A missing privilege and a lock that others hold are findings, not errors: the next call
    tries again. Raises only when the source itself can't be asked.
    """
    states = survey(conn, settings)
    missing = [state for state in states if state.wanted and not state.published]
    candidates = [state for state in missing if state.reason is None]
    untracked = [state for state in missing if state.reason is not None]
    added: list[TableState] = []
    if settings.new_tables == "warn":
        untracked += [
            replace(
                state,
                reason="it was created later, and new_tables is `warn`",
                fix=publication.add_statement(settings.publication, [state.identifier]),
            )
            for state in candidates
        ]
    elif candidates:
        added, refused = publish(conn, settings.publication, candidates)
        untracked += refused
    failing = tuple(state for state in states if state.published and state.reason is not None)
    return NewTables(
        tuple(added),
        tuple(sorted(untracked, key=lambda state: state.qualified)),
        failing,
        unmatched_rules(conn, settings, states),
    )


def publish(
    conn: psycopg.Connection[Any], name: str, states: list[TableState]
) -> tuple[list[TableState], list[TableState]]:
    """Add tables to a publication, each by itself, so that one in the way leaves the others.

    Returns those that were added, and those that were not, with reason and fix.
    """
    found = publication.read(conn, name)
    added: list[TableState] = []
    refused: list[TableState] = []
    for state in states:
        problem = None
        if found is None:
            problem = f'the publication "{name}" does not exist'
        elif not found.owned:
            problem = f'the publication "{name}" belongs to {found.owner}, who must add it'
        elif not state.owned:
            problem = "it belongs to another role, and only its owner may publish it"
        else:
            problem = _try_to_add(conn, name, state)
        if problem is None:
            added.append(replace(state, published=True))
        else:
            fix = publication.add_statement(name, [state.identifier])
            refused.append(replace(state, reason=problem, fix=fix))
    return added, refused


def _try_to_add(conn: psycopg.Connection[Any], name: str, state: TableState) -> str | None:
    try:
        with conn.transaction():
            conn.execute("select set_config('lock_timeout', %s, true)", [str(LOCK_TIMEOUT_MS)])
            publication.add(conn, name, [state.identifier])
    except psycopg.errors.LockNotAvailable:
        return "another session holds a lock on it (such as CREATE INDEX); it is tried again"
    except psycopg.errors.DuplicateObject:
        return None  # somebody else was quicker
    except psycopg.errors.UndefinedTable:
        return "it was dropped meanwhile"
    except (psycopg.errors.ProgrammingError, psycopg.errors.NotSupportedError) as error:
        return first_line(error)
    except psycopg.Error as error:
        if conn.closed:
            raise
        return first_line(error)
    return None


def _state(row: tuple[Any, ...], settings: Settings) -> TableState:
    oid, schema, name, root, published, owned, unlogged, identity, *rest = row
    key, key_usable, key_columns, identity_index, other_index, has_virtual = rest
    qualified = f"{schema}.{name}"
    table = sql.Identifier(schema, name)
    effective = _effective(identity, key_usable, identity_index)
    reason: str | None = None
    fix: str | None = None
    never_full: str | None = None
    if unlogged:
        never_full = "it is unlogged, so its changes never reach the write-ahead log"
    elif has_virtual:
        never_full = (
            "REPLICA IDENTITY FULL covers its virtual generated column, which PostgreSQL can't"
            " publish: its updates and deletes would fail"
        )
    if unlogged:
        reason = never_full
        fix = _alter(table, sql.SQL("set logged"))
    elif effective == "none":
        reason = _why_none(identity, key)
        fix = _mend(table, identity, key, key_usable, key_columns, other_index)
    elif effective == "full" and has_virtual:
        reason = never_full
        fix = _mend(table, identity, key, key_usable, key_columns, other_index, full=False)
    return TableState(
        oid=oid,
        schema=schema,
        name=name,
        root=root,
        published=published,
        wanted=matches(qualified, root, settings),
        owned=owned,
        identity=effective,
        reason=reason,
        fix=fix,
        never_full=never_full,
    )


def _effective(identity: str, key_usable: bool, identity_index: str | None) -> str:
    if identity == "f":
        return "full"
    if identity == "d" and key_usable:
        return "primary key"
    if identity == "i" and identity_index is not None:
        return f"index {identity_index}"
    return "none"


def _why_none(identity: str, key: str | None) -> str:
    if identity == "n":
        return "its replica identity is NOTHING"
    if identity == "i":
        return "the index of its replica identity is gone or invalid"
    if key is None:
        return "it has no primary key"
    return "its primary key is deferrable or invalid, so it identifies no row while it is checked"


def _mend(
    table: sql.Identifier,
    identity: str,
    key: str | None,
    key_usable: bool,
    key_columns: list[str] | None,
    other_index: str | None,
    *,
    full: bool = True,
) -> str | None:
    """The least statement that gives the table an effective identity."""
    if key_usable and identity != "d":
        return _alter(table, sql.SQL("replica identity default"))
    if other_index is not None:
        index = sql.Identifier(other_index)
        return _alter(table, sql.SQL("replica identity using index {}").format(index))
    if identity == "d" and key is not None:
        # Nothing can reference a deferrable key, so it can be replaced in one statement.
        again = sql.SQL("drop constraint {0}, add constraint {0} primary key ({1})")
        columns = sql.SQL(", ").join(map(sql.Identifier, key_columns or []))
        return _alter(table, again.format(sql.Identifier(key), columns))
    return _alter(table, sql.SQL("replica identity full")) if full else None


def _alter(table: sql.Identifier, action: sql.Composable) -> str:
    return sql.SQL("alter table {} {};").format(table, action).as_string(None)
