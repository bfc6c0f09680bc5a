"""How `bemi status --coverage` shows what is complete: a bar for each table, and it in words.

Pure: from what was read to lines of text.
"""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from bemi.cli.output import count, printable
from bemi.lsn import Lsn
from bemi.store.completeness import (
    CONTINUED,
    Missing,
    SourceCoverage,
    Span,
    Stretch,
    TableCoverage,
)
from bemi.store.moments import Moment
from bemi.times import spell

KNOWN: Final = "#"
COMPLETE: Final = "-"
LOST: Final = "x"
NOTHING: Final = "."
LEGEND: Final = (
    f"{KNOWN} complete, every row known   {COMPLETE} every change, not all rows"
    f"   {LOST} changes missing   {NOTHING} not covered"
)
STYLES: Final = {KNOWN: "green", COMPLETE: "cyan", LOST: "red bold", NOTHING: "dim"}
_WORST: Final = (LOST, NOTHING, COMPLETE, KNOWN)

WIDTH: Final = 40
_NAMES: Final = 44
"""Where the bars begin, unless names are longer."""
_BETWEEN: Final = 2
"""Spaces before a bar."""

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


def as_json(found: SourceCoverage) -> Any:
    """For programs: positions in PostgreSQL's form, everything else as it is."""
    return _exact(found)


def _exact(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _exact(each) for name, each in msgspec.structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [_exact(each) for each in value]
    return str(value) if isinstance(value, Lsn) else value


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


def wrapped(line: str, window: int | None) -> list[str]:
    """A line as those that it takes in a window of so many columns; None: there is none."""
    if window is None or len(line) <= window:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line.strip(),
        width=window,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def lines(found: SourceCoverage, *, window: int | None = None) -> Iterator[tuple[str, str | None]]:
    """Lines of text; those with a bar have it apart, to be coloured, and fit into the window.

    The rest is for `wrapped`.
    """
    if not found.spans or found.start is None or found.end is None:
        yield "  nothing yet", None
        return
    start, end = _both(found.start, found.end)
    yield f"  log from {start}", None
    yield f"      to   {end}", None
    if len(found.spans) > 1:
        yield f"  in {count(len(found.spans), 'epoch')}, parted by | in the bars", None
    for missing in found.missing:
        yield f"  missing in all tables: {_missing(missing)}", None
    if not found.tables:
        yield "  no table is covered yet", None
        return
    # Tables that had the same name, one after the other, are each by itself.
    groups = [
        (root, list(group))
        for (root, _), group in itertools.groupby(
            found.tables,
            lambda each: (each.root, each.relation if each.partition is None else None),
        )
    ]
    width = max(_NAMES, *(len(printable(table.name)) + 6 for table in found.tables))
    if window is not None:
        width = max(min(width, window - _BETWEEN - WIDTH), 0)
    yield "", None
    for root, group in groups:
        yield from _group(found, root, group, width)


def _group(
    found: SourceCoverage, root: str, group: Sequence[TableCoverage], width: int
) -> Iterator[tuple[str, str | None]]:
    bars = [bar(found, table) for table in group]
    texts = [list(_words(table)) for table in group]
    if group[0].partition is None:
        dropped = ", dropped" if group[0].last.closed == "table_dropped" else ""
        yield from _heading(f"  {root}{dropped}", bars[0], texts[0], width, indent=4)
        return
    alike = all(
        text == texts[0] and drawn == bars[0] for text, drawn in zip(texts, bars, strict=True)
    )
    heading = f"  {root}, {count(len(group), 'partition')}"
    if alike:
        yield from _heading(heading, bars[0], texts[0], width, indent=4)
        return
    worst = "".join(
        min(cells, key=lambda cell: _WORST.index(cell) if cell in _WORST else -1)
        for cells in zip(*bars, strict=True)
    )
    yield from _heading(heading, worst, (), width, indent=4)
    for table, drawn, text in zip(group, bars, texts, strict=True):
        yield from _heading(f"    {table.name}", drawn, text, width, indent=6)


def _heading(
    heading: str, drawn: str, text: Sequence[str], width: int, *, indent: int
) -> Iterator[tuple[str, str | None]]:
    name = printable(heading)
    if len(name) > width:
        # On a line of its own, so that the bars still stand below each other.
        yield name, None
        name = ""
    yield name.ljust(width), drawn
    for line in text:
        yield " " * indent + printable(line), None


# --- a table in words ------------------------------------------------------------------------


def _words(table: TableCoverage) -> Iterator[str]:
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
        start, end = _both(since, last.end)
        yield f"was complete since {start}, to {end}"
    if since != first.start:
        yield f"and before that since {_start(first.start)}, but for what is missing"
    yield _state(table)
    for missing in table.missing:
        yield f"missing: {_missing(missing)}"


def _state(table: TableCoverage) -> str:
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


def _missing(missing: Missing) -> str:
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


def _both(start: Moment, end: Moment) -> tuple[str, str]:
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


# --- a table as a bar ------------------------------------------------------------------------


def bar(found: SourceCoverage, table: TableCoverage) -> str:
    """The source's log from left to right, each cell an equal part of an epoch's.

    A gap is seen however short it is; of the rest a cell shows what holds at its end.
    """
    lengths = [max(span.end - span.start, 1) for span in found.spans]
    room = max(WIDTH - len(found.spans) + 1, len(found.spans))
    drawn = []
    for span, cells in zip(found.spans, _shares(lengths, room), strict=True):
        length = max(span.end - span.start, 1)
        bounds = [span.start + length * at // cells for at in range(cells + 1)]
        drawn.append(
            "".join(
                _cell(found, table, span, low, high) for low, high in itertools.pairwise(bounds)
            )
        )
    return "|".join(drawn)


def _shares(lengths: Sequence[int], room: int) -> list[int]:
    """`room` cells by length; each at least one."""
    spare = room - len(lengths)
    total = sum(lengths)
    shares = [1 + spare * length // total for length in lengths]
    shares[lengths.index(max(lengths))] += room - sum(shares)
    return shares


def _cell(found: SourceCoverage, table: TableCoverage, span: Span, low: int, high: int) -> str:
    gaps = [each for each in (*found.missing, *table.missing) if not each.columns]
    if any(_lies_in(gap, span, low, high) for gap in gaps):
        return LOST
    holds = NOTHING
    for stretch in table.stretches:
        if stretch.start.epoch == span.epoch and _reaches(stretch, high):
            known = stretch.state is not None and stretch.state.position < high
            holds = KNOWN if known and not _outdated(stretch, gaps, high) else COMPLETE
    return holds


def _lies_in(gap: Missing, span: Span, low: int, high: int) -> bool:
    """Whether part of the gap lies in the cell. One that is over epochs takes the rest of each."""
    start = gap.start.position if gap.start.epoch == span.epoch else None
    if gap.start.epoch > span.epoch:
        return False
    if gap.end is None:
        return start is None or start < high
    if gap.end.epoch < span.epoch:
        return False
    end = gap.end.position if gap.end.epoch == span.epoch else None
    if start is not None and end is not None and start == end:
        return low <= start < high
    return (start is None or start < high) and (end is None or end > low)


def _reaches(stretch: Stretch, high: int) -> bool:
    """Whether it holds at the cell's end."""
    return stretch.start.position < high and (stretch.open or stretch.end.position >= high)


def _outdated(stretch: Stretch, gaps: Sequence[Missing], high: int) -> bool:
    """Whether changes between the stretch's state and here are missing."""
    assert stretch.state is not None
    return any(
        gap.start.epoch == stretch.state.epoch
        and stretch.start.position <= gap.start.position < high
        and gap.end is not None
        and gap.end.position > stretch.state.position
        for gap in gaps
    )
