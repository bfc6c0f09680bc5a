"""Which changes a reader wants: the same filters in every command, page and route."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self
from uuid import UUID

from bemi.errors import UsageError
from bemi.lsn import Lsn
from bemi.store.own import Own
from bemi.store.scope import Scope
from bemi.times import spell

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a change stands in the feed, which is ordered by these four."""

    committed_at: datetime
    commit_position: int
    ordinal: int
    epoch: int

    def __str__(self) -> str:
        """As a page's cursor: to be given back, and not to be understood."""
        microseconds = (self.committed_at - _EPOCH) // _MICROSECOND
        parts = [microseconds, self.commit_position, self.ordinal, self.epoch]
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Raises ValueError for what is no cursor."""
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            microseconds, *rest = parts = json.loads(text)
            if len(rest) != 3 or not all(type(part) is int for part in parts):
                raise ValueError
            return cls(_EPOCH + microseconds * _MICROSECOND, *rest)
        except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error):
            raise ValueError(f"{cursor!r} is not the cursor of a page") from None


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one epoch's log: behind a change, and before the commit at `end`."""

    epoch: int
    commit: int
    ordinal: int
    end: int


@dataclass(frozen=True, slots=True)
class Portion:
    """Changes of one transaction: behind `ordinal`, and up to `last`."""

    committed_at: datetime
    epoch: int
    commit: int
    ordinal: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which changes; all of what is given must be true of them.

    The newest come first, unless `oldest_first`.
    """

    table: str | None = None
    """`schema.table`, or a table in the schema `public`."""
    key: str | None = None
    """The primary key's text; for a composite key a JSON array of texts."""
    trace: str | None = None
    """A `trace_id` or a `request_id` of the context."""
    oldest_first: bool = False
    operation: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    """Both are times of commits, and both bounds belong to it."""
    transaction: int | None = None
    context: tuple[tuple[str, str], ...] = ()
    """Key and value, compared as text: `7` is 7 and "7". A dotted key reaches nested ones."""
    before: tuple[tuple[str, str], ...] = ()
    after: tuple[tuple[str, str], ...] = ()
    """Column and value, compared as text, of the row before the change, and after it."""
    changed: str | None = None
    """A column that an UPDATE changed, or may have changed where its before-image is unknown."""
    from_position: int | None = None
    to_position: int | None = None
    """Positions of commits in the log of one source; both bounds belong to it."""
    source: str | None = None
    behind: Place | None = None
    """Only what follows this place, in the order that is asked for: the next page."""
    limit: int | None = None
    id: UUID | None = None
    by_log: bool = False
    """In the order of one source's log, as states follow each other, whatever its clock did."""
    within: Window | Portion | None = None
    scope: Scope | None = None
    """What whoever asks may see; None is all."""
    own: tuple[Own, ...] | None = None
    """Only changes of rows that are a tenant's own, before or after; None is all."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a range in which nothing can be."""
        if self.since is not None and self.until is not None and self.since > self.until:
            raise UsageError(
                f"since {spell(self.since)} is after until {spell(self.until)}: nothing is between",
                fix="give the earlier time as since",
            )
        first, last = self.from_position, self.to_position
        if first is not None and last is not None and first > last:
            raise UsageError(
                f"from_position {Lsn(first)} is behind to_position {Lsn(last)}: nothing is between",
                fix="give the smaller position as from_position",
            )
