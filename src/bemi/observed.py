"""What was seen of a source: findings of checks, its slot and its log as they are now, its tables.

The words that those who look share with those who show it. Pure.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from bemi.amounts import count, size, span

Level = Literal["ok", "warning", "failure", "not checked"]


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    message: str
    fix: str | None = None
    figures: "tuple[Price, ...]" = ()
    """Of each table, where the finding is about figures."""


@dataclass(frozen=True, slots=True)
class Price:
    """What both replica identities of a table cost a day; None is what can't be told.

    `identity` is the present one, `default` for one that logs the key alone.
    """

    table: str
    identity: Literal["default", "full"]
    changes_a_day: float
    """Updates and deletes."""
    row_bytes: float | None
    """The average old row, large values included."""
    full_wal_bytes_a_day: float | None
    """That FULL adds to the log."""
    default_lookups_a_day: float
    """That DEFAULT needs in the history."""
    default_lookup_seconds_a_day: float | None


class Problem(msgspec.Struct, frozen=True):
    """A table, and why it is not as it should be."""

    table: str
    reason: str
    fix: str | None


class Live(msgspec.Struct, frozen=True):
    """What the source itself says now, of the slot and the tables of these settings.

    `wal_rate` is in bytes a second, measured only where what is kept is bounded; at this rate,
    and with no worker, the slot is lost after `seconds_to_full`. `uncovered` are tables that are
    captured, of which it is not proven yet from where on they are complete.
    """

    slot_active: bool
    wal_status: str | None
    retained_bytes: int | None
    safe_wal_size: int | None
    wal_rate: float | None
    seconds_to_full: float | None
    behind_bytes: int | None
    tracked: int
    untracked: list[Problem]
    failing: list[Problem]
    uncovered: list[str]


class Seen(msgspec.Struct, frozen=True):
    """`findings`: what an operator has to hear of; `estimates`: about how many rows a table has, by
    relation, where a baseline is being taken."""

    live: Live
    findings: tuple[str, ...]
    estimates: dict[int, int]


class Offered(msgspec.Struct, frozen=True):
    """A table that can be chosen. `reason` says why it can't be tracked as it is, `fix` what helps;
    `never_full` why REPLICA IDENTITY FULL would not. `rows` and `bytes`: about, without what is
    stored aside, as PostgreSQL's statistics have them; None before they do."""

    schema: str
    name: str
    root: str | None
    identity: str
    tracked: bool
    wanted: bool
    reason: str | None
    fix: str | None
    never_full: str | None
    rows: int | None
    bytes: int | None

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"


Fate = Literal["same", "otherwise", "silent", "skipped"]
"""What rules do to a change: nothing; some values are stored otherwise; it is none, since it alters
ignored and excluded columns only; a rule of `skip` leaves it out."""


class KnownTable(msgspec.Struct, frozen=True):
    """A table as the history knew it last. `identity` is the replica identity's letter."""

    schema: str
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    identity: str


def price(each: Price) -> str:
    """A table's prices in a line."""
    full = "unknown, as there are no statistics of its rows"
    if each.row_bytes is not None and each.full_wal_bytes_a_day is not None:
        full = f"{size(each.full_wal_bytes_a_day)} of WAL a day ({size(each.row_bytes)} a row)"
    asked = f"{count(round(each.default_lookups_a_day), 'lookup')} a day"
    if each.default_lookup_seconds_a_day is not None:
        asked += f", {each.default_lookup_seconds_a_day:,.1f} s of them"
    return f"{each.table} ({each.identity.upper()}): FULL {full}; DEFAULT {asked}"


def rows(live: Live, *, paused: bool) -> list[tuple[str, str]]:
    """What is shown of it: names and values."""
    away = "not connected" if paused else "not connected: `bemi run` starts one"
    shown = [("worker", "connected" if live.slot_active else away)]
    if live.wal_status is not None:
        kept = f"{size(live.retained_bytes or 0)}, {live.wal_status}"
        if live.safe_wal_size is not None:
            kept += f", {size(live.safe_wal_size)} more before the slot is lost"
        elif live.wal_status != "lost":
            kept += ", without a limit"
        shown.append(("kept WAL", kept))
    if live.wal_rate is not None:
        shown.append(("time to full", _time_to_full(live)))
    if live.behind_bytes is not None:
        shown.append(("behind", f"{size(live.behind_bytes)} of WAL"))
    tables = count(live.tracked, "table")
    if live.untracked:
        tables += f", {len(live.untracked)} not tracked"
    shown.append(("tracked", tables))
    if live.uncovered:
        shown.append(
            (
                "not yet sure",
                f"{', '.join(live.uncovered)}: from where on it is complete; a worker finds out",
            )
        )
    return shown


def _time_to_full(live: Live) -> str:
    assert live.wal_rate is not None
    if live.seconds_to_full is None:
        return "nothing is written into the log just now"
    rate = f"at {size(live.wal_rate)}/s"
    held = ", if the worker stopped" if live.slot_active else ", if no worker is started"
    return f"{span(live.seconds_to_full)} {rate}{held}"
