"""Sets tables to REPLICA IDENTITY FULL, and remembers how each is set back."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.capture.progress import Progress
from bemi.capture.tables import TableState, survey
from bemi.config import Settings
from bemi.connections import explained, first_line
from bemi.errors import SetupError
from bemi.store import sources
from bemi.store.sources import Setup

Connection = psycopg.Connection[Any]

LOCK_TIMEOUT: Final = "3s"
"""What `alter table … replica identity` may wait for its lock: all of the application's
statements on that table queue up behind it meanwhile."""


def select(
    source: Connection, settings: Settings, globs: Sequence[str]
) -> tuple[list[TableState], list[tuple[str, str]]]:
    """Those to set, and those to leave as they are: they would not be tracked all the same."""
    states = survey(source, settings)
    selected: dict[int, TableState] = {}
    left_out: dict[str, str] = {}
    for glob in globs:
        pattern = glob if "." in glob else f"public.{glob}"
        found = [
            state
            for state in states
            if fnmatchcase(state.qualified, pattern)
            or (state.root is not None and fnmatchcase(state.root, pattern))
        ]
        if not found:
            raise SetupError(
                f"--full {glob} matches no table",
                fix="give SCHEMA.TABLE, where * stands for anything",
            )
        against = {
            state.qualified: state.never_full or "it is not among the tables that are to be tracked"
            for state in found
            if state.never_full or not state.wanted
        }
        if len(against) == len(found):
            name, reason = next(iter(against.items()))
            raise SetupError(
                f"--full {glob} matches no table that it is for: {name}: {reason}",
                fix="track the table too (--table, --schema, exclude_tables), or leave --full out"
                if found[0].never_full is None
                else found[0].fix or "leave --full out: its key is enough",
            )
        left_out |= against
        selected.update(
            (state.oid, state)
            for state in found
            if state.identity != "full" and state.qualified not in against
        )
    return list(selected.values()), list(left_out.items())


def set_all(
    source: Connection,
    destination: Connection,
    settings: Settings,
    setup: Setup,
    states: Sequence[TableState],
    progress: Progress,
) -> tuple[Setup, list[tuple[str, str]]]:
    """Each table by itself: one that is locked or another role's does not keep the rest."""
    failed: list[tuple[str, str]] = []
    for state in states:
        statement = sql.SQL("alter table {} replica identity full").format(state.identifier)
        back = _set_back_statement(source, state)
        try:
            with source.transaction():
                source.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
                source.execute(statement)
        except psycopg.errors.LockNotAvailable:
            failed.append((state.qualified, f"others kept it locked for {LOCK_TIMEOUT}"))
            continue
        except psycopg.errors.InsufficientPrivilege:
            text = statement.as_string(None)
            failed.append((state.qualified, f"only its owner may; as its owner: {text};"))
            continue
        except psycopg.errors.UndefinedTable as error:
            failed.append((state.qualified, first_line(error)))
            continue
        progress.add(f"set {state.qualified} to REPLICA IDENTITY FULL")
        changed = {**setup.replica_identity, state.qualified: back}
        setup = msgspec.structs.replace(setup, replica_identity=changed)
        with explained("destination"):
            sources.remember(destination, settings.schema, settings.source, setup)
    return setup, failed


def _set_back_statement(source: Connection, state: TableState) -> str:
    row = source.execute(
        "select relreplident::text from pg_class where oid = %s", [state.oid]
    ).fetchone()
    identity = row[0] if row is not None else "d"
    to: sql.Composable = sql.SQL("nothing" if identity == "n" else "default")
    if identity == "i" and state.identity.startswith("index "):
        to = sql.SQL("using index {}").format(sql.Identifier(state.identity.removeprefix("index ")))
    statement = sql.SQL("alter table {} replica identity {};").format(state.identifier, to)
    return statement.as_string(None)
