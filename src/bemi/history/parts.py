"""Where two values differ inside: JSON by path, texts by their pieces. Pure."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from diff_match_patch import diff_match_patch

_SECONDS: Final = 0.2
"""After which a text counts as another one: hostile ones would take for ever."""
_PLAIN: Final = re.compile(r"\w+")


class Missing:
    """In the place of a value that one side does not have."""


MISSING: Final = Missing()

Mark: TypeAlias = Literal["=", "-", "+"]


class Part(NamedTuple):
    """What differs at a path such as `.address.city` or `.tags[2]`; empty for the whole."""

    path: str
    before: Any
    after: Any


def parts(before: Any, after: Any, path: str = "") -> Iterator[Part]:
    """Where two values of JSON differ, as deep as both have something."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            step = f".{name}" if _PLAIN.fullmatch(name) else f".{json.dumps(name)}"
            yield from parts(before.get(name, MISSING), after.get(name, MISSING), path + step)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _items(before, after, path)
    elif repr(before) != repr(after):
        yield Part(path, before, after)


def _items(before: list[Any], after: list[Any], path: str) -> Iterator[Part]:
    """What is alike at both ends is left alone, so that an insertion is one."""
    first = 0
    while first < min(len(before), len(after)) and repr(before[first]) == repr(after[first]):
        first += 1
    last = 0
    while last < min(len(before), len(after)) - first and repr(before[-1 - last]) == repr(
        after[-1 - last]
    ):
        last += 1
    old, new = before[first : len(before) - last], after[first : len(after) - last]
    for at in range(max(len(old), len(new))):
        yield from parts(
            old[at] if at < len(old) else MISSING,
            new[at] if at < len(new) else MISSING,
            f"{path}[{first + at}]",
        )


def pieces(before: str, after: str) -> list[tuple[Mark, str]]:
    """A text's way to another one: what both have (`=`), what went (`-`), what came (`+`)."""
    engine = diff_match_patch()
    engine.Diff_Timeout = _SECONDS
    found = engine.diff_main(before, after)
    engine.diff_cleanupSemantic(found)
    marks: dict[int, Mark] = {0: "=", -1: "-", 1: "+"}
    return [(marks[kind], text) for kind, text in found]
