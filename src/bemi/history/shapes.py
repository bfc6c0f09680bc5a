"""Brings stored rows into the shape that their table had at a position.

A column is its number, whatever it was called; one that was added without a default is null in
older rows, and one that was dropped is gone from them. A table's shape is known from its changes,
so what was altered shows from the first change behind it on.
"""

from collections.abc import Sequence, Set
from typing import Final

import msgspec

from bemi.store.shapes import Shape

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_NULL: Final = msgspec.Raw(b"null")


def shaped(
    shapes: Sequence[Shape], image: msgspec.Raw, flags: Set[str], place: tuple[int, int]
) -> tuple[msgspec.Raw, Set[str]]:
    """A row as a change at `place` left it, and that change's flags, in the last of the shapes."""
    was = next((each for each in reversed(shapes) if each.place <= place), None)
    if was is None or was.columns == (now := shapes[-1]).columns:
        return image, flags
    values = _decode(image)
    numbers = {column.number: column for column in was.columns if column.number}
    names = {column.name: column for column in was.columns}
    found: dict[str, msgspec.Raw] = {}
    called: dict[str, str] = {}
    for column in now.columns:
        before = numbers.get(column.number)
        namesake = names.get(column.name)
        if before is None and namesake is not None and not (namesake.number and column.number):
            before = namesake
        if before is not None:
            called[before.name] = column.name
            if before.name in values:
                found[column.name] = values[before.name]
        elif namesake is None and column.name in values:
            # What a baseline read was newer than the shape that is known.
            found[column.name] = values[column.name]
        elif not column.filled:
            found[column.name] = _NULL
    gone = names.keys() - called.keys()
    kept = {
        f"{word}:{called.get(name, name)}" if name else word
        for word, _, name in (flag.partition(":") for flag in flags)
        if name not in gone
    }
    return msgspec.Raw(_encode(found)), kept
