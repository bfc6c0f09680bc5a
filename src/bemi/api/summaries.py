"""Transactions in short, one after the other, however large they are: of each its first changes."""

from collections.abc import Generator
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
            found = [list(run) for _, run in runs(rows, _TRANSACTION)]
        is_last = sum(map(len, found)) <= size
        if not is_last:
            cut = found.pop()
            if not found:
                if size < MOST:
                    size = MOST
                    continue
                found = [cut]
        size = _FIRST
        for each in found:
            behind = _end(each[0], oldest_first=filters.oldest_first)
            yield Summary(each[:MOST], len(each) > MOST, behind)
        if is_last:
            return


def _end(of: StoredChange, *, oldest_first: bool) -> Place:
    number = _LAST if oldest_first else 0
    return Place(of.committed_at, of.commit_position, number, number)
