"""Splits changes into groups as they come, without holding them."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from bemi.history.change import Change
from bemi.store.dimensions import Dimension
from bemi.store.reader import StoredChange


class Group(msgspec.Struct, frozen=True):
    """Changes one after the other that have one value in what they are grouped by.

    `changes` are read as they are taken: they are there until the next group is asked for.
    """

    by: str
    value: Any
    first: Change
    changes: Iterator[Change]


def runs(
    changes: Iterable[StoredChange], by: Dimension
) -> Iterator[tuple[Any, Iterator[StoredChange]]]:
    """The groups in the order of the changes, each with its value.

    So a value may come again, but a transaction is one group, since its changes follow each other.
    """

    def identity(change: StoredChange) -> tuple[Any, ...]:
        value = by.of(change)
        if by.name != "transaction":
            return (value,)
        # Of several sources that read the same database it is one transaction still.
        return (value, change.commit_position, change.committed_at, change.database)

    for (value, *_), group in itertools.groupby(changes, identity):
        yield value, group


def groups(changes: Iterable[StoredChange], by: Dimension) -> Iterator[Group]:
    for value, run in runs(changes, by):
        first = Change.of(next(run))
        yield Group(by.name, value, first, itertools.chain([first], map(Change.of, run)))
