"""What a benchmark found, and two contestants who take turns."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contest:
    """Rows a second of ours and of what it is held against; medians of `repeats` turns each."""

    name: str
    rows: int
    repeats: int
    rows_per_second: float
    against: str
    against_rows_per_second: float
    ratio: float


def contest(
    name: str,
    rows: int,
    repeats: int,
    ours: Callable[[], float],
    against: str,
    theirs: Callable[[], float],
) -> Contest:
    """Alternate, so that whatever else the machine does meanwhile slows down both."""
    our_seconds, their_seconds = [], []
    for _ in range(repeats):
        our_seconds.append(ours())
        their_seconds.append(theirs())
    us, them = statistics.median(our_seconds), statistics.median(their_seconds)
    return Contest(name, rows, repeats, rows / us, against, rows / them, them / us)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the commit's return to the change being seen, the way `name` says."""

    name: str
    commits: int
    median: float
    p95: float
    p99: float
    poll: float | None = None
    """Median of one poll alone, where that is how it is seen: no latency below it can be."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident memory of the worker's process, in MB, after a transaction of `rows`."""

    rows: int
    peak: float
    idle: float
    """Before the transaction."""
