"""The replication slot on the source: reads it, makes it, drops it.

It is made with SQL, on an ordinary connection, and not over the replication protocol: both ask
for the REPLICATION attribute and nothing else, but the function needs no free WAL sender, heeds
statement_timeout, and tells where the slot begins in the same way. Until it returns there is
no slot: one that is interrupted leaves none.
https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from bemi.connections import connect, explained
from bemi.errors import BemiError, SetupError
from bemi.lsn import Lsn

PLUGIN: Final = "pgoutput"
_WATCH_INTERVAL: Final = 1.0
"""Seconds between looks at who is in the way; the first comes after as many, so that a slot
that is made at once is made without a second connection."""


@dataclass(frozen=True, slots=True)
class Slot:
    name: str
    plugin: str | None
    """None for a physical slot."""
    database: str | None
    two_phase: bool
    temporary: bool
    active_pid: int | None
    application: str | None
    """Of the process that holds it, where the role may see it."""
    wal_status: str | None
    """`reserved`, `extended`, `unreserved` or `lost`; None before it is known."""
    safe_wal_size: int | None
    """Bytes that may still be written before the slot is lost; None where that is not bounded."""
    confirmed: Lsn | None
    retained: int | None
    """Bytes of WAL that the source keeps for it."""
    failover: bool | None
    """Whether standbys that synchronise slots have it; None before PostgreSQL 17."""

    def fault(self, database: str) -> str | None:
        """Why a worker of `database` can't use it, if so."""
        if self.plugin is None:
            return "it is a physical slot"
        if self.plugin != PLUGIN:
            return f"its plugin is {self.plugin}, not {PLUGIN}"
        if self.database != database:
            return f'it belongs to the database "{self.database}"'
        if self.temporary:
            return "it is temporary, and ends with the session that made it"
        if self.two_phase:
            return "it decodes prepared transactions before they commit (two_phase)"
        return None


def read(conn: psycopg.Connection[Any], name: str) -> Slot | None:
    with explained("source"):
        row = conn.execute(
            "select s.slot_name::text, s.plugin::text, s.database::text,"
            " coalesce((to_jsonb(s) ->> 'two_phase')::boolean, false), s.temporary, s.active_pid,"
            " (select nullif(a.application_name, '') from pg_stat_activity a"
            "  where a.pid = s.active_pid),"
            " s.wal_status, s.safe_wal_size, s.confirmed_flush_lsn::text,"
            " case when not pg_is_in_recovery()"
            "  then pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint end,"
            " (to_jsonb(s) ->> 'failover')::boolean"
            " from pg_replication_slots s where s.slot_name = %s",
            [name],
        ).fetchone()
    if row is None:
        return None
    confirmed = None if row[9] is None else Lsn.parse(row[9])
    return Slot(*(*row[:9], confirmed, *row[10:]))


def create(
    conn: psycopg.Connection[Any],
    name: str,
    *,
    url: str,
    wait: float,
    report: Callable[[str], None],
) -> Lsn:
    """Make the slot; returns where it begins. It sees all that commits after this call began.

    Waits up to `wait` seconds for every transaction that has written and is still open, in any
    database of the cluster, and reports who that is. The caller has committed its own work.
    Raises `SetupError`, and then there is no slot.
    """
    # A standby that takes over has the slot too. (Before 17 a slot can't follow.)
    creation = _CREATE_17 if conn.info.server_version >= 170000 else _CREATE
    blockers: list[str] = []
    conn.execute("select set_config('statement_timeout', %s, false)", [str(int(wait * 1000))])
    conn.execute("set lock_timeout = 0")
    try:
        with _watching(url, conn.info.backend_pid, blockers, report):
            row = conn.execute(creation, [name, PLUGIN]).fetchone()
    except psycopg.errors.QueryCanceled as error:
        who = "; ".join(blockers) or "unknown: the role may not see them"
        raise SetupError(
            f'the slot "{name}" was not made within {wait:g} s: it waits for transactions'
            f" that were open before it ({who})",
            fix="let them end, or end them with pg_terminate_backend, then run `bemi init` again"
            " (--slot-wait SECONDS waits longer)",
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SetupError(
            f'the role "{conn.info.user}" may not create a replication slot',
            fix=replication_fix(conn.info.user),
        ) from error
    except psycopg.errors.ConfigurationLimitExceeded as error:
        raise SetupError(
            "all replication slots of the source are in use",
            fix="drop one that nobody needs, or raise max_replication_slots and restart",
        ) from error
    finally:
        if not conn.closed:
            with contextlib.suppress(psycopg.Error):
                conn.execute("reset statement_timeout")
    assert row is not None
    return Lsn.parse(row[0])


def drop(conn: psycopg.Connection[Any], slot: Slot) -> None:
    """Raises `SetupError` naming the process that holds it: it is never ended from here."""
    try:
        conn.execute("select pg_drop_replication_slot(%s)", [slot.name])
    except psycopg.errors.ObjectInUse as error:
        raise held(read(conn, slot.name) or slot) from error
    except psycopg.errors.UndefinedObject:
        return  # somebody else was quicker
    except psycopg.errors.InsufficientPrivilege as error:
        raise SetupError(
            f'the role "{conn.info.user}" may not drop the replication slot "{slot.name}"',
            fix=f"a role that may runs: select pg_drop_replication_slot('{slot.name}');",
        ) from error


def replication_fix(role: str) -> str:
    """What lets a role replicate."""
    return f'alter role "{role}" replication; on a managed service, grant its replication role'


def held(slot: Slot) -> SetupError:
    """What to say of a slot that another process uses."""
    who = f"process {slot.active_pid}" if slot.active_pid else "another process"
    application = f' ("{slot.application}")' if slot.application else ""
    return SetupError(
        f'the slot "{slot.name}" is in use by {who} on the source{application}',
        fix="stop that worker first",
    )


@contextlib.contextmanager
def _watching(
    url: str, pid: int, blockers: list[str], report: Callable[[str], None]
) -> Iterator[None]:
    """While the body waits, look through a second connection at whom it waits for."""
    done = threading.Event()

    def watch() -> None:
        if done.wait(_WATCH_INTERVAL):
            return
        # What is seen here helps to understand the wait. That it can't be seen is no error.
        with (
            contextlib.suppress(BemiError, psycopg.Error),
            connect(url, what="source", client_encoding="UTF8") as conn,
        ):
            while True:
                found = [row[0] for row in conn.execute(_BLOCKERS, {"pid": pid})]
                if found and found != blockers:
                    blockers[:] = found
                    report(f"waiting for open transactions: {'; '.join(found)}")
                if done.wait(_WATCH_INTERVAL):
                    return

    watcher = threading.Thread(target=watch, name="slot-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


_CREATE: Final = "select lsn::text from pg_create_logical_replication_slot(%s, %s, false, false)"
_CREATE_17: Final = (
    "select lsn::text from pg_create_logical_replication_slot(%s, %s, false, false, true)"
)

# A prepared transaction has no process; pg_blocking_pids gives 0 for it.
_BLOCKERS: Final = """
select format('PID %%s', b.pid)
    || coalesce(format(' %%s', a.usename), '')
    || coalesce(format(' (%%s)', nullif(a.application_name, '')), '')
    || coalesce(format(' in database %%s', a.datname), '')
    || coalesce(format(', for %%s s', extract(epoch from now() - a.xact_start)::int / 10 * 10), '')
from unnest(pg_blocking_pids(%(pid)s)) b (pid)
join pg_stat_activity a on a.pid = b.pid
union all
select format('prepared transaction %%L in database %%s', p.gid, p.database)
from pg_prepared_xacts p
where 0 = any(pg_blocking_pids(%(pid)s))
order by 1
"""
