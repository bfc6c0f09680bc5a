"""Random statements and contexts, for clients that are to make of them what Python's does."""

import random
from collections.abc import Iterator
from typing import Any, Final

from tests.unit import test_statements

FUNCTIONS: Final = ("add_one", "close_month")
LIMITS: Final = (1000, 4096, 1 << 20)

# Words that say something, and what hides them, ends them or takes them apart.
_KEYWORDS: Final = """
    insert update delete select merge truncate copy with explain analyze analyse do call execute
    create alter drop grant comment begin start transaction commit end rollback abort prepare
    prepared savepoint release to work into for key no from table index concurrently database system
    set reset discard role authorization local set_config add_one close_month values declare fetch
    vacuum show a t x1 as Σ İd é ª ² ٣
"""
_WORDS: Final = (
    *_KEYWORDS.split(),
    *("'", "''", "e'", "E'\\'", '"', '""', "$$", "$a$", "$é$", "$1", "\\", "/*", "*/", "--", "-"),
    *(";", ";", "(", ")", "(", ")", ".", ",", "*", "\n", "\t", "\x1f", "\x85", "\ufeff", "😀"),
)
_GAPS: Final = ("", "", " ", " ", " ", "\n", "/* ; */", "\u2003")

_NAMES: Final = (
    *("a", "b", "user", "Zoë", "木", "😀", "\x00", "\ud800", "", "_bemi", "…", "a.b", "é" * 40),
    *("password", "API-Key", "tokens", "refreshToken2", "token_id", "Cookie٣", "ſecret"),
    *("__proto__", "constructor"),
)
_TEXTS: Final = (
    *("", "x", "*/ '; drop table t; -- %s", "\x00", "\udc00x\ud800x", "\x7f\x1b\n\u2028"),
    *("\\u0000", "é", "😀", "x" * 1000, "é\n" * 300, "😀" * 200, '"\\' * 300),
)


def statements(count: int) -> Iterator[str]:
    """Texts of SQL, or nearly: the ones of the unit tests, and random ones."""
    chance = random.Random(count)
    yield from (*test_statements.WRITES, *test_statements.READS, *test_statements.ROLES)
    for _ in range(count):
        words = chance.choices(_WORDS, k=chance.randrange(1, 12))
        yield "".join(
            (chance.choice((str.upper, str)))(word) + chance.choice(_GAPS) for word in words
        )


def contexts(count: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Contexts of what JSON has, and the bytes that each may have."""
    chance = random.Random(count)
    for _ in range(count):
        context: dict[str, Any] = {}
        for _ in range(chance.randrange(8)):
            context[_name(chance)] = _value(chance, 4)
        if chance.random() < 0.1:
            for n in range(chance.randrange(200)):
                context[f"{_name(chance)}{n}x"] = _value(chance, 1)
        if chance.random() < 0.1:
            context["_bemi"] = chance.choice((1, {}, {"replaced": ["x"]}, {"redacted": "é" * 300}))
        yield context, chance.choice(LIMITS)


def _name(chance: random.Random) -> str:
    return "".join(chance.choices(_NAMES, k=chance.choice((1, 1, 1, 2, 7))))


def _value(chance: random.Random, depth: int) -> object:
    """Without floats, which are written differently, and so cut differently."""
    kind = chance.randrange(10 if depth else 6)
    if kind < 3:
        return "".join(chance.choices(_TEXTS, k=chance.choice((1, 1, 2))))
    if kind == 3:
        return chance.choice((None, True, False))
    if kind < 6:
        return chance.randrange(-1 << chance.randrange(1000), 1 << chance.randrange(1000))
    many = range(chance.choice((0, 1, 3, 8)) if depth > 1 else 2)
    if kind < 8:
        return [_value(chance, depth - 1) for _ in many]
    return {_name(chance): _value(chance, depth - 1) for _ in many}
