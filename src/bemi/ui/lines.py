"""Lines of the file of settings, and commands, that pages show to be copied. Pure."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from bemi.rules import Rules, Skip
from bemi.ui.commands import is_plain

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_PASSWORD: Final = "PASSWORD"


def address(user: str, host: str, port: int, database: str) -> str:
    """A connection string without its password."""
    at = f"[{host}]" if ":" in host else host
    return f"postgresql://{quote(user, safe='')}:{_PASSWORD}@{at}:{port}/{quote(database, safe='')}"


def source(
    name: str | None,
    address: str | None,
    *,
    schemas: Sequence[str] = (),
    tables: Sequence[str] = (),
) -> str:
    """A source in the file: of several, the one called `name`."""
    head = [] if name is None else [f"[sources.{_key(name)}]"]
    if address is not None:
        head.append(f"source_url = {_text(address)}")
    if schemas:
        head.append(f"schemas = {_list(schemas)}")
    if tables:
        head.append(f"tables = {_list(tables)}")
    return "\n".join(head)


def rules(given: Rules, source: str | None = None) -> str:
    """Rules in the file: for all sources, or for one of several."""
    table = "rules" if source is None else f"sources.{_key(source)}.rules"
    written = [f"[{table}]"]
    for kind in ("ignore", "exclude", "mask", "hash"):
        globs = getattr(given, kind)
        if globs:
            written.append(f"{kind} = {_list(globs)}")
    for skip in given.skip:
        written += ["", f"[[{table}.skip]]", *_skip(skip)]
    return "\n".join(written)


def command(name: str, source: str | None, *flags: tuple[str, str | None]) -> str:
    """Empty where a terminal would not take it as it is written."""
    words = ["bemi", name]
    for flag, value in (*flags, *((("--source", source),) if source else ())):
        if value is None:
            words.append(flag)
        elif not is_plain(value):
            return ""
        elif value.startswith("-"):
            words.append(f"{flag}={value}")
        else:
            words += [flag, value]
    return shlex.join(words)


def _skip(skip: Skip) -> list[str]:
    found = []
    if skip.tables:
        found.append(f"tables = {_list(skip.tables)}")
    if skip.operations:
        found.append(f"operations = {_list(skip.operations)}")
    if skip.context:
        found.append(f"context = {_table(skip.context)}")
    return found


def _table(values: Mapping[str, Any]) -> str:
    pairs = ", ".join(f"{_key(name)} = {_text(value)}" for name, value in values.items())
    return f"{{ {pairs} }}"


def _list(values: Sequence[str]) -> str:
    """On a line, or each on its own where that would be long."""
    texts = [_text(each) for each in values]
    line = f"[{', '.join(texts)}]"
    if len(line) <= 80:
        return line
    return "[\n" + "".join(f"  {each},\n" for each in texts) + "]"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    """A basic string: JSON's are, but for DEL. https://toml.io/en/v1.0.0#string"""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
