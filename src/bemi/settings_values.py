"""Turns a value that was given into what its setting takes, or says what that would be.

Errors name the place where the value was given, down to the part that is wrong, and never the
value itself.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, get_origin, get_type_hints

import msgspec

from bemi import settings, settings_file
from bemi.errors import ConfigError
from bemi.rules import Rules, Skip
from bemi.settings import PREFIX, OidcSettings, Settings, WrongValueError
from bemi.settings_file import Given

_TYPES: Final = {**get_type_hints(Settings), **get_type_hints(OidcSettings)}
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
_SKIP: Final = (
    'tables [[rules.skip]], with lists such as tables = ["jobs"] and operations = ["update"], and'
    ' values such as context = { job = "nightly" }'
)


def is_list(key: str) -> bool:
    """Whether the setting takes several values."""
    return get_origin(_TYPES[key]) is tuple


def convert(key: str, given: Given) -> object:
    """Raises ConfigError."""
    if key == "rules":
        given = replace(given, value=_with_texts(given.value))
    try:
        # A variable is always a text; flags and the file have types of their own.
        return msgspec.convert(given.value, _TYPES[key], strict=not given.name.startswith(PREFIX))
    except msgspec.ValidationError as error:
        # msgspec's message names types and, of values, only those of a fixed list.
        problem, _, path = str(error).partition(" - at `$")
        part = given.inside(_full(path.removesuffix("`"), given.value))
        if (field := _UNKNOWN.fullmatch(problem)) is not None:
            kind = Skip if ".skip[" in part.name else Rules
            raise settings_file.unknown(
                part.inside(f".{field[1]}"), field[1], kind.__struct_fields__
            ) from None
        expected = _SKIP if ".skip" in part.name else _expected(key)
        raise ConfigError(f"{part.place}: {problem}", fix=f"give {expected}") from None


def check_rules(given: Given) -> None:
    rules = convert("rules", given)
    assert isinstance(rules, Rules)
    with places({"rules": given}):
        settings.check_rules(rules)


@contextlib.contextmanager
def places(read: Mapping[str, Given]) -> Iterator[None]:
    """Errors about a key name the place where it was read instead."""
    try:
        yield
    except WrongValueError as error:
        given = read.get(error.key) or Given(None, error.key)
        place = given.inside(error.inside).place
        raise ConfigError(f"{place}: {error.problem}", fix=error.fix) from None


def _with_texts(rules: Any) -> Any:
    """Rules whose skips have numbers and booleans of the context as the texts that they are
    compared as; what is of another form stays, to be refused."""
    match rules:
        case {"skip": [*skips]}:
            return {**rules, "skip": [_with_text(skip) for skip in skips]}
    return rules


def _with_text(skip: Any) -> Any:
    match skip:
        case {"context": {**context}}:
            texts = {
                name: json.dumps(value) if isinstance(value, bool | int | float) else value
                for name, value in context.items()
            }
            return {**skip, "context": texts}
    return skip


def _full(path: str, value: Any) -> str:
    """msgspec's path into a value, with the name of a table's key, which it leaves out."""
    table, dots, _ = path.partition("[...]")
    if not dots:
        return path
    for name, index in _STEP.findall(table):
        value = value[name] if name else value[int(index)]
    return table + next((f".{key}" for key, each in value.items() if type(each) is not str), "")


def _expected(key: str) -> str:
    kind = _TYPES[key]
    if kind is Rules:
        return 'a table of lists, such as mask = ["users.email"] in [rules]'
    if get_origin(kind) is tuple:
        return "a list of names"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, kind.__args__))
    return {str: "a text", float: "a number"}[kind]
