"""What is complete of a table, and what is missing, in words. Pure."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from bemi.store.extent import CONTINUED, Missing, SourceCoverage, TableCoverage
from bemi.store.moments import Moment
from bemi.times import spell

CAUSES: Final = {
    "slot_ahead": "the slot went on without the history: it was lost and made anew, or read by"
    " something else; or the destination was restored",
    "epoch_changed": "the source became another server or timeline: it was restored, promoted or"
    " upgraded",
    "restored": "the source was replaced by an older copy of itself, which went on differently",
    "untracked": "the table was taken out of the publication",
    "publication_dropped": "the publication was dropped",
    "publication_altered": "the publication was altered, so that it may have left changes out",
    "table_dropped": "the table was dropped",
    "ignored": "changes left out by the rules",
    "chain": "found by `bemi verify`",
    "rewrite": "the table was altered; older values may have been rewritten",
}
"""What ended a stretch, or made a gap."""

_AGAIN: Final = {
    "untracked": "`bemi init` tracks it again",
    "publication_dropped": "`bemi recover` makes it anew",
    "publication_altered": "`bemi doctor` says what is wrong with it",
    "slot_ahead": "`bemi recover` goes on",
    "epoch_changed": "`bemi recover` goes on",
    "restored": "`bemi recover` goes on",
}
"""What to do about a gap that goes on."""

_UNITS: Final = (timedelta(seconds=1), timedelta(milliseconds=1), timedelta(microseconds=1))
"""In which times are told, the first that will do."""

_BY: Final = {"empty": "it was empty", "baseline": "its baseline"}


def summary(found: SourceCoverage) -> str:
    """One line about all tables."""
    of: dict[str, int] = {}
    for table in found.tables:
        of[table.state] = of.get(table.state, 0) + 1
    known = of.pop("known", 0)
    ended = of.pop("ended", 0)
    dropped = sum(table.last.closed == "table_dropped" for table in found.tables)
    parts = (
        [f"{count(known, 'table')} complete with every row"] if known or not found.tables else []
    )
    if unknown := sum(of.values()):
        parts.append(f"{count(unknown, 'table')} with every change, but not every row")
    if lost := ended - dropped:
        parts.append(f"{count(lost, 'table')} not captured any more")
    if dropped:
        parts.append(f"{count(dropped, 'table')} dropped")
    return "; ".join(parts)


def words(table: TableCoverage) -> Iterator[str]:
    last = table.last
    first = table.stretches[0]
    since = last.start
    # Stretches that go on at the same place are one.
    for before, behind in itertools.pairwise(reversed(table.stretches)):
        if behind.closed not in CONTINUED or before.start != since:
            break
        since = behind.start
    if last.open:
        yield f"complete since {_start(since)}"
    else:
        start, end = both(since, last.end)
        yield f"was complete since {start}, to {end}"
    if since != first.start:
        yield f"and before that since {_start(first.start)}, but for what is missing"
    yield state_words(table)
    for missing in table.missing:
        yield f"missing: {missing_words(missing)}"


def state_words(table: TableCoverage) -> str:
    last, baseline = table.last, table.baseline
    match table.state:
        case "known":
            assert last.state is not None
            return f"every row known since {_start(last.state)}: {_BY[last.state_by or 'empty']}"
        case "no_baseline":
            return "its rows from before are not known: `bemi snapshot` takes its baseline"
        case "baseline_running":
            rows = 0 if baseline is None else baseline.rows
            return f"its baseline is not finished, {count(rows, 'row')} so far: `bemi snapshot`"
        case "baseline_failed":
            reason = "" if baseline is None else baseline.failed
            return f"its baseline was given up: {reason}; `bemi snapshot` tries again"
        case "behind_gap":
            return "what changed in the gap is not known: `bemi recover` finds out"
        case "begun_anew":
            return "its rows are not known by its present key or rules: `bemi snapshot`"
        case "outdated":
            name = table.name
            return (
                "its rows are not known since changes are missing:"
                f" `bemi snapshot --again --table '{name}'`"
            )
        case "ended":
            cause = CAUSES.get(last.closed or "", last.closed or "")
            return f"not captured any more: {cause}"


def missing_words(missing: Missing) -> str:
    words = CAUSES.get(missing.cause, missing.cause)
    if missing.columns:
        words += f" ({', '.join(missing.columns)})"
    if missing.changes is not None:
        words += f", {count(missing.changes, 'change')}"
    if missing.cause == "chain" and missing.detail:
        words += f": {missing.detail}"
    words += f" ({missing.cause})"
    if missing.end is None:
        until = "until now"
        words += f": {_AGAIN[missing.cause]}" if missing.cause in _AGAIN else ""
    else:
        until = f"to {_place(missing.end, up=True)}"
    pending = "" if missing.accepted else "; not accepted yet"
    return f"from {_place(missing.start, up=False)} {until}: {words}{pending}"


def _start(moment: Moment) -> str:
    return _place(moment, up=True)


def both(start: Moment, end: Moment) -> tuple[str, str]:
    """Both ends of what is complete: as fine as it takes for the one to come before the other."""
    if start.time is None or end.time is None:
        return _start(start), _place(end, up=False)
    if start.time > end.time:
        return str(start.position), str(end.position)  # there is no change in between
    for unit in _UNITS:
        since, until = _rounded(start.time, unit, up=True), _rounded(end.time, unit, up=False)
        if since < until:
            break
    return f"{spell(since)} ({start.position})", f"{spell(until)} ({end.position})"


def _place(moment: Moment, *, up: bool) -> str:
    """The time in whole seconds, and the position. What is complete is never told longer."""
    if moment.time is None:
        return str(moment.position)
    return f"{spell(_rounded(moment.time, _UNITS[0], up=up))} ({moment.position})"


def _rounded(time: datetime, unit: timedelta, *, up: bool) -> datetime:
    time = time.astimezone(UTC)
    over = (time - time.replace(microsecond=0)) % unit
    return time - over + unit if up and over else time - over


def count(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"
