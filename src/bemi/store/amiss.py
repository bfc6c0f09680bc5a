"""What of a source's history needs somebody: in words, with the command that goes on. Pure."""

from typing import Final

from bemi.store.extent import SourceCoverage, TableCoverage
from bemi.store.reader import Gap, SourceStatus
from bemi.times import spell

_ALONE: Final = ("untracked", "publication_altered")
"""Causes of gaps of single tables, which nobody is asked to accept."""


def findings(source: SourceStatus, covered: SourceCoverage) -> list[str]:
    """What the destination alone knows to be amiss."""
    if source.removed_at is not None:
        return []
    found = [
        f"{source.source}: changes{_of(gap)} between {gap.from_position} and {gap.to_position} are"
        f" missing ({gap.cause}, seen {spell(gap.detected_at)}): {_way_on(gap)}"
        for gap in source.unaccepted
    ]
    if source.position is None:
        found.append(f"{source.source}: its setup was not finished: run `bemi init`")
    if unseen := [table.name for table in covered.tables if _is_unseen(table)]:
        found.append(
            f"{source.source}: what became of the rows of {', '.join(unseen)} while"
            f" {'it was' if len(unseen) == 1 else 'they were'} not captured is not known:"
            " `bemi recover` finds out"
        )
    return found


def _is_unseen(table: TableCoverage) -> bool:
    """Whether it was not captured for a while, of which nobody knows yet what it came to.

    A gap of the whole source is left out: that is a finding of its own until it is accepted.
    """
    if table.state != "behind_gap":
        return False
    for stretch in reversed(table.stretches[:-1]):
        if stretch.closed in _ALONE:
            return True
        if stretch.state is not None:
            break
    return False


def _of(gap: Gap) -> str:
    return "" if gap.table is None else f" of {gap.table}"


def _way_on(gap: Gap) -> str:
    if gap.cause == "chain":
        return "`bemi verify` tells more, `bemi verify --accept` takes it as known"
    return (
        "`bemi recover` goes on behind them and finds out what they came to,"
        " `bemi run --accept-gap` only goes on"
    )
