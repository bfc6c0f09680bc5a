"""Answers of any length: each keeps a connection until it is taken, so only some run at once."""

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

import msgspec

from bemi.api.places import Places
from bemi.api.principals import ForbiddenError
from bemi.store.reader import StoredChange
from bemi.tabular import Table

MOST: Final = 6
MOST_OF_ONE: Final = 3
_PIECE: Final = 1 << 16


_AGAIN: Final = 15.0
"""Seconds after which it is looked again whether who takes them may."""


class Owner(msgspec.Struct, frozen=True):
    """Who takes an export. `may`: whether they may still."""

    label: str
    may: Callable[[], bool]

    def taking(self, pieces: Iterable[bytes]) -> Generator[bytes]:
        """The same. Raises `ForbiddenError` in the middle of them when they may not any more."""
        looked = time.monotonic()
        for piece in pieces:
            if time.monotonic() - looked > _AGAIN:
                if not self.may():
                    raise ForbiddenError("whoever takes this may not any more")
                looked = time.monotonic()
            yield piece


class Exports:
    def __init__(self) -> None:
        self.places = Places("exports", MOST, MOST_OF_ONE)

    def taking(
        self, owner: Owner, pieces: Generator[bytes], below: Generator[Any] | None = None
    ) -> Generator[bytes]:
        """The same, in one of the places, with what is `below` it closed in the end. Raises
        `BusyError`."""
        try:
            with self.places.held(owner.label):
                yield from owner.taking(pieces)
        finally:
            pieces.close()
            if below is not None:
                below.close()


def csv(changes: Iterable[StoredChange]) -> Generator[bytes]:
    """As RFC 4180 has it: see `bemi.tabular`."""
    waiting = bytearray()
    table = Table(*StoredChange.__struct_fields__, to=waiting.extend)
    for each in changes:
        table.add(msgspec.structs.astuple(each))
        if len(waiting) >= _PIECE:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)
