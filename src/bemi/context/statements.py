"""Tells by its words whether a statement writes, and what it does to the open transaction.

No parser: comments, texts and quoted names are passed over, and what is left is looked at word by
word. Where the words don't tell, a statement counts as one that writes, which costs a message and
loses nothing. What functions do that a SELECT calls can't be seen: those that the application
names count. Standard library only, no I/O.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Control: TypeAlias = Literal["begin", "end", "rollback", "savepoint", "release", "rollback to"]
"""What a statement does to the transaction; `end` is COMMIT, and PREPARE TRANSACTION."""

_WRITES: Final = frozenset(("insert", "update", "delete", "merge"))
_DDL: Final = frozenset((
    "create", "alter", "drop", "comment", "grant", "import", "reassign", "revoke", "security",
))  # fmt: skip
_SETTERS: Final = frozenset(("set_config",))
# What `create`, `alter` and `drop` may name inside of a transaction block.
# fmt: off
_IN_BLOCK: Final = frozenset((
    "aggregate", "cast", "collation", "column", "constraint", "conversion", "default", "domain",
    "event", "extension", "foreign", "function", "global", "group", "index", "language", "local",
    "materialized", "operator", "or", "owned", "policy", "procedural", "procedure", "publication",
    "recursive", "role", "routine", "rule", "schema", "sequence", "server", "statistics", "table",
    "temp", "temporary", "text", "transform", "trigger", "trusted", "type", "unique", "unlogged",
    "user", "view",
))
# fmt: on

_LONGEST_CACHED: Final = 4096

_TOKEN: Final = re.compile(
    r"""
    (?P<blank> \s+ | --[^\n\r]* )
    | (?P<comment> /\* )
    | (?P<text> [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z) )
    | (?P<name> "(?:[^"]|"")*(?:"|\Z) )
    | (?P<dollar> \$(?:[^\W\d]\w*)?\$ )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<mark> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")

# Statements that need no second look: one alone, whose first word says everything.
_PLAIN: Final = re.compile(r"\s*(insert|update|delete|select)\b[^;]*(?:;\s*)?\Z", re.IGNORECASE)
# What a SELECT may be that says more: into a table, or setting a role.
_TELLING: Final = ("into", "set_config")


@dataclass(frozen=True, slots=True)
class Statement:
    """What the text that one call of a driver sends does; it may hold several statements.

    `writes`: it may change rows, or the schema. `wrappable`: a transaction block may be opened
    and ended around it. `controls`: what it does to the transaction, in order, with the name of
    the savepoint where there is one. `several`: it holds more than one statement. `roles`: it may
    change who the session's role is.
    """

    writes: bool = False
    wrappable: bool = True
    several: bool = False
    controls: tuple[tuple[Control, str], ...] = ()
    roles: bool = False


_READ: Final = Statement()
_WRITE: Final = Statement(writes=True)


def classify(text: str | bytes, functions: frozenset[str] = frozenset()) -> Statement:
    """What a statement does. `functions`: names in lower case that count as writes when called."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    plain = _PLAIN.match(text)
    if plain is not None:
        if plain[1].lower() != "select":
            return _WRITE
        lower = text.lower()
        if not functions and not any(word in lower for word in _TELLING):
            return _READ
    if len(text) > _LONGEST_CACHED:
        return _classify(text, functions)
    return _classify_cached(text, functions)


def _classify(text: str, functions: frozenset[str]) -> Statement:
    found = [_one(words, functions) for words in _statements(text) if words]
    if len(found) == 1:
        return found[0]
    controls = tuple(control for each in found for control in each.controls)
    return Statement(
        writes=any(each.writes for each in found),
        wrappable=not controls and all(each.wrappable for each in found),
        several=len(found) > 1,
        controls=controls,
        roles=any(each.roles for each in found),
    )


_classify_cached = functools.lru_cache(maxsize=4096)(_classify)


def _statements(text: str) -> Iterator[list[str]]:
    """Each statement's words in lower case, names as `"name"`, marks as they are."""
    words: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None
        at = found.end()
        kind = found.lastgroup
        if kind == "comment":
            at = _end_of_comment(text, at)
        elif kind == "dollar":
            end = text.find(found[0], at)
            at = len(text) if end < 0 else end + len(found[0])
            words.append("'")
        elif kind == "text":
            words.append("'")
        elif kind == "word":
            words.append(found[0].lower())
        elif kind == "name":
            words.append(found[0])
        elif found[0] == ";":
            yield words
            words = []
        elif kind == "mark":
            words.append(found[0])
    yield words


def _end_of_comment(text: str, at: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, at)
        if edge is None:
            return len(text)
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return at


def _one(words: list[str], functions: frozenset[str]) -> Statement:
    while words and words[0] == "(":
        words = words[1:]
    if not words:
        return _READ
    first = words[0]
    control = _control(words)
    if control is not None:
        return Statement(wrappable=False, controls=(control,))
    if first in _WRITES or first == "truncate":
        return _WRITE
    if first == "with":
        if _holds_write(words):
            return _WRITE
    elif first == "explain":
        if {"analyze", "analyse"} & {*words} and (
            _holds_write(words) or {"execute", "create"} & {*words}
        ):
            return _WRITE
    elif first == "copy":
        return _WRITE if _copies_from(words) or _holds_write(words) else _READ
    elif first == "select":
        if "into" in words:
            return _WRITE
        if _calls(words, _SETTERS):
            writes = bool(functions) and _calls(words, functions)
            return Statement(writes=writes, roles=True)
    elif first in ("do", "call"):
        # They may commit inside, which a block around them would forbid.
        return Statement(writes=True, wrappable=False)
    elif first == "execute":
        return _WRITE  # a prepared statement, by its name alone
    elif first in _DDL:
        kind = words[1] if len(words) > 1 else ""
        anywhere = first not in ("create", "alter", "drop") or kind in _IN_BLOCK
        return Statement(writes=True, wrappable=anywhere and "concurrently" not in words)
    elif first not in ("values", "table", "declare", "fetch"):
        # vacuum, set, show, listen, …: nothing that a context could belong to.
        return Statement(wrappable=False, roles=_sets_role(words))
    return _WRITE if functions and _calls(words, functions) else _READ


def _control(words: Sequence[str]) -> tuple[Control, str] | None:
    first = words[0]
    second = words[1] if len(words) > 1 else ""
    if first == "begin" or (first, second) == ("start", "transaction"):
        return "begin", ""
    if (first, second) == ("prepare", "transaction"):
        return "end", ""
    if first in ("commit", "end", "rollback", "abort"):
        if second == "prepared":
            return None
        rest = [word for word in words[1:] if word not in ("work", "transaction")]
        if first == "rollback" and rest[:1] == ["to"]:
            return "rollback to", _savepoint(rest[1:])
        return ("end" if first in ("commit", "end") else "rollback"), ""
    if first == "savepoint":
        return "savepoint", _savepoint(words[1:])
    if first == "release":
        return "release", _savepoint(words[1:])
    return None


def _savepoint(words: Sequence[str]) -> str:
    if len(words) > 1 and words[0] == "savepoint":
        words = words[1:]
    if not words:
        return ""
    name = words[0]
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _holds_write(words: Sequence[str]) -> bool:
    """Whether a part of it may write; `for update` and `for no key update` do not."""
    return any(
        word in _WRITES and before not in ("for", "key", ".")
        for before, word in itertools.pairwise(words)
    )


def _sets_role(words: Sequence[str]) -> bool:
    """SET ROLE and SET SESSION AUTHORIZATION, and what takes them back."""
    if words[0] in ("reset", "discard"):
        return True
    if words[0] != "set":
        return False
    named = {"role", "authorization", "session_authorization"} & {*words[1:3]}
    return bool(named) or words[2:4] == ["session", "authorization"]


def _copies_from(words: Sequence[str]) -> bool:
    depth = 0
    for word in words:
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
        elif depth == 0 and word in ("from", "to"):
            return word == "from"
    return False


def _calls(words: Sequence[str], functions: frozenset[str]) -> bool:
    return any(
        after == "(" and (word[1:-1] if word.startswith('"') else word) in functions
        for word, after in itertools.pairwise(words)
    )
