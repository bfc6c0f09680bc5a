"""Brings stored rows into the shape that their table had at a position.

A column is its number, whatever it was called; one that was added without a default is null in
older rows, and one that was dropped is gone from them. A table's shape is known from its changes,
so what was altered shows from the first change behind it on.
"""

from collections.abc import Sequence

import msgspec

from bemi.store.shapes import Shape


class Source(msgspec.Struct, frozen=True):
    """Where an image has the value of a column; where it has none, that is null.

    `filled`: it may be another, which nothing told: that of a default, or of a column that had
    another name.
    """

    called: str
    source: str | None
    filled: bool


def shape_at(shapes: Sequence[Shape], place: tuple[int, int]) -> Shape | None:
    return next((each for each in reversed(shapes) if each.place <= place), None)


def sources(was: Shape, now: Shape) -> list[Source]:
    """Where the images of one shape have the columns of another."""
    numbers = {column.number: column for column in was.columns if column.number}
    names = {column.name: column for column in was.columns}
    found = []
    for column in now.columns:
        before = numbers.get(column.number)
        namesake = names.get(column.name)
        if before is None and namesake is not None and not (namesake.number and column.number):
            before = namesake
        if before is not None:
            found.append(Source(column.name, before.name, filled=True))
        else:
            # What a baseline read was newer than the shape that is known.
            source = column.name if namesake is None else None
            found.append(Source(column.name, source, column.filled or not column.number))
    return found
