"""How `bemi status --coverage` shows what is complete: a bar for each table, and it in words.

Pure: from what was read to lines of text.
"""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from bemi.cli.output import count, printable
from bemi.store.covered import both, missing_words, words
from bemi.store.extent import Missing, SourceCoverage, Span, Stretch, TableCoverage

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
    start, end = both(found.start, found.end)
    yield f"  log from {start}", None
    yield f"      to   {end}", None
    if len(found.spans) > 1:
        yield f"  in {count(len(found.spans), 'epoch')}, parted by | in the bars", None
    for missing in found.missing:
        yield f"  missing in all tables: {missing_words(missing)}", None
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
    texts = [list(words(table)) for table in group]
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
