"""What Bemi's earlier packages left in the source: triggers that put contexts into the log.

They made a function, a trigger for each table that calls it before each row, a procedure that
makes those triggers, and an event trigger that calls that for new tables. Each is known by its name
and by what it does; nothing is dropped for its name alone, and nothing with what depends on it.
"""

import time
from typing import Any, Final, Literal

import msgspec
import psycopg

from bemi.connections import explain, explained
from bemi.errors import PassingError, SetupError

LOCK_TIMEOUT: Final = 5
"""Seconds to wait for a table: it has to stand still for the moment in which a trigger goes."""
_PAUSE: Final = 0.1

Kind = Literal["event trigger", "function", "procedure", "trigger"]


class Found(msgspec.Struct, frozen=True):
    kind: Kind
    name: str
    table: str | None
    """Where it is a trigger."""
    sql: str
    """What drops it."""


# In the order in which they can be dropped. The texts tell them from others of the same names.
_FIND: Final = r"""
with rows as (
    select p.oid from pg_catalog.pg_proc p
    where p.proname in ('_bemi_row_trigger_func', '_bemi_pass_sb_context_func')
        and p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype
        and p.prosrc ~* 'pg_logical_emit_message\s*\(\s*true\s*,\s*''_bemi''\s*,'
), makers as (
    select p.oid from pg_catalog.pg_proc p
    where p.proname = '_bemi_create_triggers' and p.prokind = 'p' and p.pronargs = 0
        and p.prosrc ~ '(_bemi_row_trigger_func|_bemi_pass_sb_context_func)'
), callers as (
    select p.oid from pg_catalog.pg_proc p
    where p.proname = '_bemi_create_table_trigger_func'
        and p.prorettype = 'pg_catalog.event_trigger'::pg_catalog.regtype
        and p.prosrc ~ '_bemi_create_triggers'
), setters as (
    select p.oid from pg_catalog.pg_proc p
    where p.proname = 'bemi_set_context'
        and p.pronargs = 1 and p.proargtypes[0] = 'pg_catalog.text'::pg_catalog.regtype
        and p.prosrc ~* 'set_config\s*\(\s*''bemi\.context'''
), found (place, kind, name, relation, statement) as (
    select 1, 'event trigger', t.evtname::text, null,
        pg_catalog.format('drop event trigger %I;', t.evtname)
    from pg_catalog.pg_event_trigger t join callers c on c.oid = t.evtfoid
    union all
    select 3, 'trigger', t.tgname::text, t.tgrelid::pg_catalog.regclass::text,
        pg_catalog.format('drop trigger %I on %s;', t.tgname, t.tgrelid::pg_catalog.regclass)
    from pg_catalog.pg_trigger t join rows r on r.oid = t.tgfoid
    where not t.tgisinternal and t.tgparentid = 0
    union all
    select each.place, each.kind, each.oid::pg_catalog.regprocedure::text, null,
        pg_catalog.format('drop %s %s;', each.kind, each.oid::pg_catalog.regprocedure)
    from (
        select 2 as place, 'function' as kind, c.oid from callers c
        union all select 4, 'procedure', m.oid from makers m
        union all select 5, 'function', r.oid from rows r
        union all select 6, 'function', s.oid from setters s
    ) each
)
select kind, name, relation, statement from found order by place, relation, name
"""


def find(conn: psycopg.Connection[Any]) -> list[Found]:
    """In the order in which they can be dropped."""
    with explained("source"), conn.transaction():
        # Names as every session reads them.
        conn.execute("set local search_path = pg_catalog, pg_temp")
        return [Found(*row) for row in conn.execute(_FIND.encode())]


def script(found: list[Found]) -> str:
    """The SQL that drops them, in one transaction."""
    return "\n".join(
        [
            "begin;",
            f"set local lock_timeout = '{LOCK_TIMEOUT}s';",
            *(each.sql for each in found),
            "commit;\n",
        ]
    )


def remove(conn: psycopg.Connection[Any], found: list[Found]) -> None:
    """All of them, or none.

    Raises psycopg's `InsufficientPrivilege`: then `script` is for an owner. Raises `PassingError`
    where a table is in use for too long, `SetupError` where something else depends on one.
    """
    end = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            with conn.transaction():
                _remove(conn, found)
        except PassingError:
            if time.monotonic() >= end:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _remove(conn: psycopg.Connection[Any], found: list[Found]) -> None:
    """In less time than the server takes to look for a deadlock, if it waits at all: otherwise
    transactions of the application would be ended, which hold one table and wait for another."""
    with explained("source"):
        row = conn.execute(
            "select extract(epoch from current_setting('deadlock_timeout')::interval)::float8"
        ).fetchone()
    end = time.monotonic() + min(0.8 * row[0] if row else 0, LOCK_TIMEOUT)
    for each in found:
        left = max(1, int(1000 * (end - time.monotonic())))
        try:
            conn.execute(f"set local lock_timeout = {left}; {each.sql}".encode())
        except psycopg.errors.InsufficientPrivilege:
            raise
        except psycopg.errors.LockNotAvailable as error:
            raise PassingError(
                f"{each.table or each.name} is in use: no lock on it within {LOCK_TIMEOUT}"
                " seconds; nothing was removed",
                fix="run it again when no transaction holds the table",
            ) from error
        except psycopg.errors.DependentObjectsStillExist as error:
            raise SetupError(
                f"{each.kind} {each.name} is used by something that Bemi did not make:"
                f" {error.diag.message_detail}; nothing was removed",
                fix="remove that first",
            ) from error
        except psycopg.Error as error:
            raise explain(error, "source") from error
