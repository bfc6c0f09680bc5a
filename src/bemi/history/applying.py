"""Applies a plan: one transaction on the target, or none.

READ COMMITTED, because each look has to see what was committed before it was given its locks. Every
row that is written is locked, in the order of tables and keys, before it is compared; so nothing
that was committed in between can be written over, and nobody can write until the end. A row that
is to come can't be locked: its unique indexes and foreign keys keep it right, and what they refuse
is looked at again, like a deadlock.
"""

import getpass
import os
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import psycopg
from psycopg import IsolationLevel

from bemi.connections import connect, explain
from bemi.context import wire
from bemi.errors import BemiError
from bemi.history.plan import About, Applied, conflicting
from bemi.history.target import as_stored
from bemi.history.writing import Writing, altered

if TYPE_CHECKING:
    from bemi.history.planning import Looked

_ATTEMPTS: Final = 6
_PAUSE: Final = 0.05
PATIENCE: Final = 30.0
"""Seconds in which what stands in the way may pass."""
_LOCK_TIMEOUT: Final = 5.0
"""Seconds until the others who wait for what is locked already are let through."""
_AGAIN: Final = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available
        "23503",  # foreign_key_violation
        "23505",  # unique_violation
        "23P01",  # exclusion_violation
    }
)
_MOST_NAMED: Final = 20


class _Looks(Protocol):
    def __call__(self, conn: psycopg.Connection[Any], *, lock: bool) -> "Looked": ...


def apply(
    onto: str, look: _Looks, context: str, *, skip_conflicts: bool, patience: float = PATIENCE
) -> Applied:
    """Raises `ConflictError`, `PassingError` and `BemiError`; nothing is written then."""
    deadline = time.monotonic() + patience
    for attempt in range(1, _ATTEMPTS + 1):
        wait = min(_LOCK_TIMEOUT, max(deadline - time.monotonic(), 0.001))
        try:
            with connect(onto, what="target", autocommit=False) as conn:
                conn.isolation_level = IsolationLevel.READ_COMMITTED
                conn.read_only = False
                conn.execute(
                    "select set_config('lock_timeout', %s, true)", [f"{wait * 1000:.0f}ms"]
                )
                return _once(conn, look, context, skip_conflicts=skip_conflicts)
        except psycopg.Error as error:
            late = attempt == _ATTEMPTS or time.monotonic() >= deadline
            if error.sqlstate not in _AGAIN or late:
                raise _told(error) from error
        # Who met us is likely to come back at the same time: not together again.
        time.sleep(random.uniform(0.5, 1) * _PAUSE * 2**attempt)
    raise AssertionError


def _once(
    conn: psycopg.Connection[Any], look: _Looks, context: str, *, skip_conflicts: bool
) -> Applied:
    looked = look(conn, lock=True)
    conflicts = looked.look.conflicts
    if conflicts and not skip_conflicts:
        raise conflicting(conflicts)
    active = [op for op in looked.ops if op.active]
    done = sum(op.done for op in looked.ops)
    skipped = sum(bool(op.conflicts) for op in looked.ops)
    if not active:
        return Applied(0, skipped, done, 0, None, notes=looked.look.notes)
    conn.execute("select pg_catalog.pg_logical_emit_message(true, '_bemi', %s::text)", [context])
    conn.execute("set constraints all deferred")
    writing = Writing(conn)
    writing.write(looked.writes)
    with as_stored(conn):
        wrong = altered(conn, active)
    if wrong:
        # Triggers that other rows set off have altered these: once more, now that all are written.
        writing.correct(wrong)
        with as_stored(conn):
            wrong = altered(conn, active)
    conn.execute("set constraints all immediate")
    row = conn.execute("select pg_catalog.pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    conn.commit()
    return Applied(
        rows=len(active),
        skipped=skipped,
        done=done,
        changes=len({id for op in active for id in op.effect.changes}),
        transaction_id=row[0],
        altered=tuple(f"{op.table.label} {op.label} {name or '*'}" for op, name in wrong),
        notes=looked.look.notes,
    )


def context_of(about: About, by: str | None, more: Mapping[str, Any]) -> str:
    """Says in the history what this is, and who did it."""
    told: dict[str, Any] = {
        "filters": about.filters,
        "source": about.source,
        "count": about.changes,
    }
    if len(about.ids) <= _MOST_NAMED:
        told["changes"] = [str(id) for id in about.ids]
    return wire.encode(
        {"job": f"bemi {about.what}", "user": by or _user(), about.what: told, **more},
        redact=False,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in some containers
        return f"uid {os.getuid()}"


def _told(error: psycopg.Error) -> BemiError:
    if error.sqlstate is not None and error.sqlstate.startswith("23"):
        words = error.diag.message_primary or str(error)
        return BemiError(
            f"nothing was written: the database refuses it: {words}",
            fix="leave the row out (--except), or change what stands in its way",
        )
    return explain(error, "target")
