"""What a source itself says now: its slot, its log, its tables. Changes nothing there."""

import time
from typing import Any, Final

import psycopg

from bemi.amounts import span
from bemi.capture import publication
from bemi.capture import slot as slots
from bemi.capture.publication import Publication
from bemi.capture.slot import Slot
from bemi.capture.tables import TableState, survey
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.lsn import Lsn
from bemi.observed import Live, Problem
from bemi.store.extent import SourceCoverage
from bemi.store.reader import SourceStatus

RATE_OVER: Final = 1.0
"""Seconds between the two looks at the log that its rate is told from."""

_SOON: Final = 3600.0
"""Seconds to the loss of the slot that an operator has to hear of: time to get up and to act."""


def ask(
    settings: Settings,
    source: SourceStatus,
    covered: SourceCoverage,
    findings: list[str],
) -> Live:
    """Asks the source; what an operator has to hear of is added to `findings`."""
    with connect(settings.source_url, what="source") as conn:
        return look(conn, settings, source, covered, findings)


def look(
    conn: psycopg.Connection[Any],
    settings: Settings,
    source: SourceStatus,
    covered: SourceCoverage,
    findings: list[str],
    *,
    rate_over: float = RATE_OVER,
) -> Live:
    """The same on a connection; `rate_over`: seconds for which the log is watched, where that is
    needed."""
    with explained("source"):
        slot = slots.read(conn, source.slot)
        published = publication.read(conn, source.publication)
        states = survey(conn, settings)
        row = conn.execute(
            "select case when not pg_is_in_recovery() then pg_current_wal_lsn()::text end"
        ).fetchone()
        rate = None
        if slot is not None and slot.safe_wal_size is not None:
            rate = _wal_rate(conn, rate_over)
    left = None if slot is None or rate is None else _time_left(slot, rate)
    findings += _of_publication(source, published)
    if slot is None:
        findings.append(
            f"{source.source}: its replication slot {source.slot} is gone from the source, and"
            " with it the changes since: `bemi recover` makes a new one, and finds out what"
            " changed meanwhile"
        )
    elif slot.wal_status == "lost":
        findings.append(
            f"{source.source}: its replication slot {source.slot} is lost: the source has removed"
            " WAL that it needed; `bemi recover` makes a new one"
        )
    elif slot.wal_status == "unreserved":
        findings.append(
            f"{source.source}: its replication slot {source.slot} may be lost at any moment: it"
            " keeps more WAL than max_slot_wal_keep_size; start the worker, or raise the limit"
        )
    elif left is not None and left < _SOON and _may_fill(slot):
        findings.append(
            f"{source.source}: its replication slot {source.slot} is lost in"
            f" {span(left)}, when the WAL kept for it passes max_slot_wal_keep_size: start"
            " the worker, or raise the limit"
        )
    behind = None
    if row is not None and row[0] is not None and source.position is not None:
        behind = max(Lsn.parse(row[0]) - source.position, 0)
    failing = [state for state in states if state.published and state.reason is not None]
    open_now = {table.relation for table in covered.tables if table.last.open}
    findings += [
        f"{state.qualified} is published, but {state.reason}: updates and deletes of it fail"
        + (f"; {state.fix}" if state.fix else "")
        for state in failing
    ]
    return Live(
        slot_active=slot is not None and slot.active_pid is not None,
        wal_status=None if slot is None else slot.wal_status,
        retained_bytes=None if slot is None else slot.retained,
        safe_wal_size=None if slot is None else slot.safe_wal_size,
        wal_rate=rate,
        seconds_to_full=left,
        behind_bytes=behind,
        tracked=sum(state.published for state in states),
        untracked=[_problem(state) for state in states if state.wanted and not state.published],
        failing=[_problem(state) for state in failing],
        uncovered=[
            state.qualified
            for state in states
            if state.published and state.reason is None and state.oid not in open_now
        ],
    )


def _of_publication(source: SourceStatus, found: Publication | None) -> list[str]:
    name = f"{source.source}: its publication {source.publication}"
    if found is None:
        again = "`bemi recover` makes it anew, and finds out what changed meanwhile"
        return [f"{name} is gone from the source: {again}"]
    if found.faults:
        fix = found.fix or "`bemi doctor` tells more"
        return [f"{name} is not as Bemi made it: {'; '.join(found.faults)}; {fix}"]
    return []


def _wal_rate(conn: psycopg.Connection[Any], over: float) -> float | None:
    """Bytes a second that the whole source writes into its log just now."""

    def look() -> tuple[int, float] | None:
        row = conn.execute(
            "select case when not pg_is_in_recovery()"
            " then (pg_current_wal_lsn() - '0/0')::bigint end,"
            " extract(epoch from clock_timestamp())::float8"
        ).fetchone()
        return None if row is None or row[0] is None else (row[0], row[1])

    first = look()
    time.sleep(over)
    last = look()
    if first is None or last is None or last[1] <= first[1]:
        return None
    return (last[0] - first[0]) / (last[1] - first[1])


def _time_left(slot: Slot, rate: float) -> float | None:
    """Seconds until the slot is lost at this rate, if it stays where it is. None: not at all."""
    room = max(slot.safe_wal_size or 0, 0)
    return room / rate if rate > 0 else None


def _may_fill(slot: Slot) -> bool:
    """Whether that can be expected: not while a worker holds less than half of the room.

    Where WAL is written fast and little of it may be kept, every hour is less than one away.
    """
    if slot.active_pid is None or slot.retained is None or slot.safe_wal_size is None:
        return True
    return slot.retained >= slot.safe_wal_size


def _problem(state: TableState) -> Problem:
    reason = state.reason or "it is not in the publication yet"
    return Problem(state.qualified, reason, state.fix)
