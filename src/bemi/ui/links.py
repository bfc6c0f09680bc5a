"""Addresses of pages. What they are about stands in the query, percent-encoded: in a path `..`
would lead elsewhere. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from bemi.errors import UsageError

Query: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, str]]

LONGEST: Final = 1000
"""Characters of a value that is linked to: servers and proxies take no address of any length."""


def url(path: str, query: Query = ()) -> str:
    """Without what is None."""
    pairs = query.items() if isinstance(query, Mapping) else query
    given = [(name, str(value)) for name, value in pairs if value is not None]
    return f"{path}?{urlencode(given)}" if given else path


def local(address: str) -> tuple[str, list[tuple[str, str]]]:
    """Path and query of one of our own pages, which somebody may have made up. Raises
    `UsageError` for what leads elsewhere."""
    if (
        not address.startswith("/")
        or address.startswith("//")
        or "\\" in address
        or any(ord(character) < 33 for character in address)
    ):
        raise UsageError("what to go back to is no page of this server")
    parts = urlsplit(address)
    return parts.path, parse_qsl(parts.query, keep_blank_values=True)


def without(query: Iterable[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in query if name not in names]


def pages(path: str, query: Iterable[tuple[str, str]], following: str | None) -> tuple[str, str]:
    """Of a list, the first page where `query` is that of another one, and the page behind
    `following`; empty where there is none, or no address takes it."""
    pairs = [*query]
    rest = without(pairs, "behind")
    first = url(path, rest) if len(rest) < len(pairs) else ""
    if not following or len(following) > LONGEST:
        return first, ""
    return first, url(path, [*rest, ("behind", following)])


def record(table: str, key: str | None, source: str | None = None) -> str:
    """Empty without a key, or for one that no address takes."""
    if key is None or len(key) > LONGEST:
        return ""
    return url("/record", {"table": table, "key": key, "source": source})


def table(name: str, source: str, moment: datetime) -> str:
    """As it was then; empty for a name that no address takes."""
    if len(name) > LONGEST:
        return ""
    return url("/table", {"table": name, "source": source, "moment": moment.isoformat()})


def change(id: object, source: str | None = None) -> str:
    return url("/change", {"id": id, "source": source})


def transaction(number: int, source: str) -> str:
    return url("/transaction", {"number": number, "source": source})


def trace(id: str) -> str:
    return url("/trace", {"id": id})
