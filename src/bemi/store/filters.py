"""Which changes a reader wants: the same filters in every command, page and route."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which changes; all of what is given must be true of them. The newest come first."""

    table: str | None = None
    """`schema.table`, or a table in the schema `public`."""
    key: str | None = None
    """The primary key's text; for a composite key a JSON array of texts."""
    operation: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    """Both are times of commits, and both bounds belong to it."""
    transaction: int | None = None
    context: tuple[tuple[str, str], ...] = ()
    """Key and value, compared as text: `7` is 7 and "7". A dotted key reaches nested ones."""
    changed: str | None = None
    """A column that an UPDATE changed, or may have changed where its before-image is unknown."""
    source: str | None = None
    limit: int | None = None
