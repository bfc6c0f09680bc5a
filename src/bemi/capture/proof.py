"""Until which time a source is captured, though nothing is committed in it.

A keepalive's clock proves nothing: a commit takes its time before it is written down. But who is
about to commit what it wrote holds the locks on its tables until it has: so a look at the clock,
then at the locks, then at the end of the log proves that what was committed by that time lies
before that place.
"""

import threading
from collections import deque
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

import msgspec

from bemi.capture.locks import Locks
from bemi.lsn import Lsn
from bemi.store.moments import DISORDER

_MOST: Final = 60
"""Proofs that are waited for; while a worker is further behind than that, what it stores has times
of its own."""

_PAGE: Final = 8192
_SEGMENT: Final = 1 << 20
_PAGE_HEADER: Final = 24
_SEGMENT_HEADER: Final = 40
"""https://github.com/postgres/postgres/blob/master/src/include/access/xlog_internal.h"""


class Proof(msgspec.Struct, frozen=True):
    """What was committed in the tracked tables by `time`, the source's, ends before `position`."""

    time: datetime
    position: Lsn


def prove(clock: datetime, locks: Locks, end: Lsn, tracked: Collection[int]) -> Proof:
    """By looks in this order. While somebody is writing, only what has had its time to be done."""
    writing = not locks.writers.keys().isdisjoint(tracked)
    return Proof(clock - timedelta(seconds=DISORDER) if writing else clock, _end_of_record(end))


class Proofs:
    """From the thread that looks to the one that reads, which gets to their places later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Proof] = deque(maxlen=_MOST)

    def add(self, proof: Proof) -> None:
        with self._lock:
            self._waiting.append(proof)

    def holds(self, position: Lsn) -> bool:
        """Whether there is one for a history up to `position`."""
        with self._lock:
            return any(each.position <= position for each in self._waiting)

    def take(self, position: Lsn) -> Proof | None:
        """The last that holds for a history up to `position`; those before it are done with."""
        with self._lock:
            held = [each for each in self._waiting if each.position <= position]
            later = [each for each in self._waiting if each.position > position]
            self._waiting = deque(later, maxlen=_MOST)
        return max(held, key=lambda each: each.time, default=None)


def _end_of_record(position: Lsn) -> Lsn:
    """Where the log would go on may lie behind the header of a page that nothing is in yet."""
    if position % _SEGMENT == _SEGMENT_HEADER:
        return Lsn(position - _SEGMENT_HEADER)
    if position % _PAGE == _PAGE_HEADER:
        return Lsn(position - _PAGE_HEADER)
    return position
