"""Event triggers on the source that record its DDL: installs them, looks at them, removes them.

They are shared by all histories of a database and live in a schema of their own, `bemi_ddl`.
What they write is read by `bemi.capture.ddl`. Only a superuser may make event triggers, or the
role that a managed service has in its place: `script` is what such a role runs.
https://www.postgresql.org/docs/current/event-triggers.html
"""

import hashlib
from importlib import resources
from typing import Any, Final, Literal

import msgspec
import psycopg

from bemi.connections import explained

SCHEMA: Final = "bemi_ddl"

_TRIGGERS: Final = {
    "bemi_ddl_command_end": "ddl_command_end",
    "bemi_sql_drop": "sql_drop",
    "bemi_table_rewrite": "table_rewrite",
}

_REMOVE: Final = b"""
drop event trigger if exists bemi_ddl_command_end;
drop event trigger if exists bemi_sql_drop;
drop event trigger if exists bemi_table_rewrite;
drop function if exists bemi_ddl.record();
drop function if exists bemi_ddl.statement(text, boolean);
drop function if exists bemi_ddl.below(oid);
drop function if exists bemi_ddl.described(oid);
drop function if exists bemi_ddl.parts_of(oid);
drop function if exists bemi_ddl.key_of(oid);
drop schema if exists bemi_ddl;
"""


class State(msgspec.Struct, frozen=True):
    """Whether they are there; `faults` says what keeps them from recording all DDL."""

    installed: Literal["no", "partly", "yes"]
    faults: tuple[str, ...] = ()


def script() -> str:
    """The SQL that makes them, in one transaction; it may run twice."""
    return f"{_text()}\ncomment on function bemi_ddl.record() is '{_mark()}';\ncommit;\n"


def removal() -> str:
    """The SQL that takes them away again."""
    return _REMOVE.decode().strip() + "\n"


def read(conn: psycopg.Connection[Any]) -> State:
    """What is installed in the connection's database."""
    with explained("source"):
        triggers = {
            name: (event, enabled, ours)
            for name, event, enabled, ours in conn.execute(
                "select t.evtname, t.evtevent, t.evtenabled::text,"
                " n.nspname = %s and p.proname = 'record' and p.prosecdef"
                " from pg_catalog.pg_event_trigger t"
                " join pg_catalog.pg_proc p on p.oid = t.evtfoid"
                " join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
                " where t.evtname = any(%s)",
                [SCHEMA, list(_TRIGGERS)],
            )
        }
        row = conn.execute(
            "select pg_catalog.obj_description(p.oid, 'pg_proc'),"
            " pg_catalog.current_setting('event_triggers', true)"
            " from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname = %s and p.proname = 'record'",
            [SCHEMA],
        ).fetchone()
    if not triggers and row is None:
        return State("no")
    faults = []
    for name, event in _TRIGGERS.items():
        if name not in triggers:
            faults.append(f"the event trigger {name} is missing")
        elif triggers[name][0] != event or not triggers[name][2]:
            faults.append(f"the event trigger {name} is not Bemi's")
        elif triggers[name][1] not in ("O", "A"):
            faults.append(f"the event trigger {name} is disabled")
    if row is not None and row[0] != _mark():
        faults.append("their function is that of another version of Bemi")
    if row is not None and row[1] == "off":
        faults.append("event_triggers is off")
    return State("yes" if len(triggers) == len(_TRIGGERS) else "partly", tuple(faults))


def install(conn: psycopg.Connection[Any]) -> bool:
    """Make them, or make them anew where something is amiss; whether that was necessary.

    Raises psycopg's `InsufficientPrivilege`, with nothing done: then `script` is for an owner.
    """
    state = read(conn)
    if state.installed == "yes" and not set(state.faults) - {"event_triggers is off"}:
        return False
    try:
        conn.execute(script().encode())
    except psycopg.Error:
        # The script's own transaction is open, and failed.
        conn.execute("rollback")
        raise
    return True


def remove(conn: psycopg.Connection[Any]) -> None:
    """Take them away, with their schema unless something else lies in it.

    Raises psycopg's errors, with nothing done.
    """
    with conn.transaction():
        conn.execute(_REMOVE)


def _text() -> str:
    file = resources.files("bemi.capture").joinpath("event_triggers.sql")
    return file.read_text(encoding="utf-8").rstrip()


def _mark() -> str:
    return f"Bemi: records DDL; {hashlib.sha256(_text().encode()).hexdigest()[:16]}"
