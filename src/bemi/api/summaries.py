"""Transactions in short, one after the other, however large they are: of each its first changes."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import msgspec
import psycopg

from bemi.history.grouping import runs
from bemi.store import reader
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters, Place
from bemi.store.reader import StoredChange

MOST: Final = 1000
"""Changes of a transaction that are looked at; those behind them are stepped over."""
_FIRST: Final = 200
"""Changes that are read at once, where that is enough for one transaction."""

LARGEST: Final = 16 << 20
"""Bytes of values that are looked at at once, or of one change."""

_TRANSACTION: Final = Dimension.parse("transaction")
_LAST: Final = (1 << 31) - 1


class Summary(msgspec.Struct, frozen=True):
    """`more`: it has others. `end`: behind all of its changes."""

    changes: list[StoredChange]
    more: bool
    end: Place


def summaries(conn: psycopg.Connection[Any], schema: str, filters: Filters) -> Generator[Summary]:
    """Of those transactions of which the filters let something through, in their order.

    Each piece is a question with a limit, which the store answers from an index.
    """
    behind = filters.behind
    size = _FIRST
    while True:
        piece = replace(filters, behind=behind, limit=size + 1)
        with closing(reader.changes(conn, schema, piece)) as rows:
            read, is_full = _read(rows)
        found = [list(run) for _, run in runs(read, _TRANSACTION)]
        is_last = len(read) <= size and not is_full
        is_cut = False
        if not is_last:
            cut = found.pop()
            if not found:
                if size < MOST and not is_full:
                    size = MOST
                    continue
                found, is_cut = [cut], True  # the last of it says that there are more
        size = _FIRST
        for each in found:
            behind = _end(each[0], oldest_first=filters.oldest_first)
            yield Summary(each[:-1] if is_cut else each, is_cut, behind)
        if is_last:
            return


def _read(rows: Iterable[StoredChange]) -> tuple[list[StoredChange], bool]:
    """As many as there is room for, and one more where there is one that has none."""
    found: list[StoredChange] = []
    size = 0
    for each in rows:
        found.append(each)
        if size > LARGEST:
            return found, True
        size += each.size
    return found, False


def _end(of: StoredChange, *, oldest_first: bool) -> Place:
    number = _LAST if oldest_first else 0
    return Place(of.committed_at, of.commit_position, number, number)
