"""The moment that somebody looks at: picked once, it goes along in the address of each page."""

from dataclasses import replace
from datetime import UTC, datetime

from bemi import times
from bemi.errors import UsageError
from bemi.store.filters import Filters


def moment_of(text: str | None) -> datetime | None:
    """None for what is no time: pages that take one have refused it before."""
    try:
        return read(text)
    except UsageError:
        return None


def read(text: str | None) -> datetime | None:
    """None where none is picked. Raises `UsageError`."""
    if not text:
        return None
    try:
        return times.parse(text, now=datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"moment: {error}") from error


def until(filters: Filters, moment: datetime | None) -> Filters:
    """Nothing that was committed after it. Raises `UsageError` where nothing can be left."""
    if moment is None or (filters.until is not None and filters.until <= moment):
        return filters
    return replace(filters, until=moment)
