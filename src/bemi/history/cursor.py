"""Where a stream stands: a place in the log of each source, as a text that can be stored.

    shop=1:0/1A2B3C4D:3:0,billing=2:0/2B3C4D5E:0:1

Of each source its name, percent-encoded; the epoch; the position of a commit; the ordinal of the
last change of it that was given, 0 for none; and how many stretches with changes missing were told.
"""

import re
from collections.abc import Mapping
from typing import Final, Self
from urllib.parse import quote, unquote

import msgspec

from bemi.lsn import Lsn

_PLACE: Final = re.compile(
    r"(?P<name>[^=,:]*)=(?P<epoch>\d{1,10}):(?P<commit>[0-9A-F/]{3,17}):(?P<ordinal>\d{1,10})"
    r":(?P<told>\d{1,10})",
    re.ASCII,
)


_NOWHERE: Final = "="
"""Of a history without sources."""


class LogPlace(msgspec.Struct, frozen=True):
    """All changes up to this one were given; with `ordinal` 0 those that commit before it."""

    epoch: int
    commit: int
    ordinal: int = 0
    told: int = 0

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.commit


class Cursor(msgspec.Struct, frozen=True):
    """The places by the names of their sources."""

    places: Mapping[str, LogPlace]

    def __str__(self) -> str:
        return (
            _NOWHERE
            if not self.places
            else ",".join(
                f"{quote(name, safe='')}={each.epoch}:{Lsn(each.commit)}:{each.ordinal}:{each.told}"
                for name, each in self.places.items()
            )
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what is no cursor."""
        places: dict[str, LogPlace] = {}
        if text == _NOWHERE:
            return cls(places)
        for part in text.split(","):
            match = _PLACE.fullmatch(part)
            if match is None or not match["name"]:
                raise ValueError(f"{text!r} is not the cursor of a stream")
            epoch, ordinal, told = (int(match[name]) for name in ("epoch", "ordinal", "told"))
            commit = int(Lsn.parse(match["commit"]))
            if max(epoch, ordinal, told) >= 1 << 31 or commit >= 1 << 63:
                raise ValueError(f"{text!r} has numbers that are no places")
            places[unquote(match["name"])] = LogPlace(epoch, commit, ordinal, told)
        return cls(places)
