"""Spells SQL that PostgreSQL wrote, of types, expressions and constraints, with other names.

Of the names that it has with their schemas. Pure; it reads what `pg_get_expr` and its like write,
no SQL that a person wrote.
"""

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

Name: TypeAlias = tuple[str, str]
"""Schema and name."""

_TOKEN: Final = re.compile(
    r"""(?P<text>[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*')"""
    r"""|(?P<name>"(?:[^"]|"")*"|[^\W\d][\w$]*)|.""",
    re.DOTALL,
)


def quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def respelled(text: str, names: Mapping[Name, Name]) -> str:
    """With each `schema.name` that `names` has another one for."""
    tokens = list(_TOKEN.finditer(text))
    found: list[str] = []
    at = 0
    while at < len(tokens):
        first, dot, second = tokens[at], tokens[at + 1 : at + 2], tokens[at + 2 : at + 3]
        if first["name"] and dot and dot[0][0] == "." and second and second[0]["name"]:
            name = names.get((_unquoted(first[0]), _unquoted(second[0][0])))
            if name is not None:
                found.append(quoted(*name))
                at += 3
                continue
        found.append(first[0])
        at += 1
    return "".join(found)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
