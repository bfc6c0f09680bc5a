"""The filters of an address as chips, each with the address without it. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from bemi.api.asking import Chosen
from bemi.ui import links
from bemi.ui.values import brief

_MOST: Final = 80

WORDS: Final = {
    "table": "table",
    "key": "key",
    "context": "context",
    "operation": "operation",
    "since": "since",
    "until": "until",
    "changed": "changed column",
    "after": "value after",
    "before": "value before",
    "trace": "request or trace",
    "transaction": "transaction",
    "source": "source",
    "from_position": "from position",
    "to_position": "to position",
    "id": "change",
}

ADDABLE: Final[Sequence[tuple[str, str, str]]] = (
    ("table", "table", "orders"),
    ("key", "key", "1042"),
    ("user", "user", "42"),
    ("operation", "operation", "update"),
    ("since", "since", "2h, yesterday 09:00"),
    ("until", "until", "2026-05-03 14:02"),
    ("changed", "changed column", "status"),
    ("after", "value after", "status=paid"),
    ("before", "value before", "status=open"),
    ("context", "context", "endpoint=/orders"),
    ("trace", "request or trace", "req-4"),
    ("transaction", "transaction", "4711"),
    ("source", "source", "shop"),
)
"""What the form offers, with an example."""


class Chip(NamedTuple):
    word: str
    value: str
    remove: str


def chosen(query: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The filters alone."""
    return [(name, value) for name, value in query if name in Chosen.model_fields]


def chips(query: Iterable[tuple[str, str]], path: str = "/") -> list[Chip]:
    pairs = [*query]
    return [
        Chip(WORDS[name], brief(value, _MOST), links.url(path, _but(pairs, at)))
        for at, (name, value) in enumerate(pairs)
        if name in Chosen.model_fields
    ]


def hidden(query: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a form has to send along, so that one more filter is added to those that there are."""
    return links.without(query, "behind", "add", "value")


def _but(pairs: Sequence[tuple[str, str]], at: int) -> list[tuple[str, str]]:
    return links.without([*pairs[:at], *pairs[at + 1 :]], "behind")
