"""A change as applications read it: its images and its context as Python's values."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID

import msgspec

from bemi.history.state import StateRow
from bemi.integrations.reading import difference
from bemi.store.filters import Place
from bemi.store.reader import StoredChange

_MOST_DIGITS: Final = 4000


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the relation `changes`, with the names of its columns.

    `before`, `after` and `context` are dictionaries; whole numbers in them are int, all others
    Decimal, so that no digit is lost.
    """

    id: UUID
    database: str
    schema: str
    table: str
    primary_key: str | None
    operation: str
    before: dict[str, Any]
    after: dict[str, Any]
    context: dict[str, Any]
    committed_at: datetime
    queued_at: datetime
    created_at: datetime
    transaction_id: int
    position: int
    commit_position: int
    ordinal: int
    epoch: int
    source: str
    previous_key: str | None
    flags: tuple[str, ...]
    rules: int | None

    @classmethod
    def of(cls, stored: StoredChange) -> Self:
        values = msgspec.structs.asdict(stored)
        for name in ("before", "after", "context"):
            values[name] = _values(values[name])
        return cls(**{**values, "flags": tuple(stored.flags or ())})

    def diff(self) -> dict[str, tuple[Any, Any]]:
        """The columns whose values differ, each with the value before and the one after.

        Of a row that was created or deleted that is all of its columns, with None on the other
        side; so it is of an update whose old row is not known (flag `before_unknown`).
        """
        return difference(self.before, self.after)

    @property
    def cursor(self) -> str:
        """Where it stands in the feed: `behind=` takes it, for what follows."""
        return str(self.place)

    @property
    def place(self) -> Place:
        return Place(self.committed_at, self.commit_position, self.ordinal, self.epoch)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row as it was: its key's text, its values, and what is special or not known of them.

    A column that `flags` has as `unchanged:COLUMN` is not known and has no value here; one with
    `stale:COLUMN` may have been rewritten by DDL since.
    """

    key: str | None
    values: dict[str, Any]
    flags: tuple[str, ...]

    @classmethod
    def of(cls, stored: StateRow) -> Self:
        return cls(key=stored.key, values=_values(stored.image), flags=tuple(sorted(stored.flags)))


def _values(raw: msgspec.Raw) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(raw), parse_int=_whole, parse_float=Decimal)
    return found


def _whole(digits: str) -> int | Decimal:
    """Python makes no int of more digits than that, since it takes it so long."""
    return int(digits) if len(digits) <= _MOST_DIGITS else Decimal(digits)
