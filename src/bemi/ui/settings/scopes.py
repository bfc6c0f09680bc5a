"""What somebody may see, as people write it: a table in a line, its columns behind a colon.

Pure.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from bemi.errors import UsageError
from bemi.store.scope import Scope
from bemi.ui.values import brief

Sees: TypeAlias = Literal["all", "some", "none", "same"]

EXAMPLE: Final = "public.orders\npublic.customers: id, name\nbilling.*"
_BRIEF: Final = 80
_LINES: Final = 3


class Typed(NamedTuple):
    """As the form has it. `same`: names that can't be typed stay as they are."""

    sees: Sees = "all"
    tables: str = ""


def spelled(scopes: Sequence[Mapping[str, Any]] | None) -> Typed:
    if scopes is None:
        return Typed("all")
    if not scopes:
        return Typed("none")
    text = "\n".join(map(_line, scopes))
    try:
        is_faithful = read("some", text) == [*scopes]
    except UsageError:
        is_faithful = False
    return Typed("some", text) if is_faithful else Typed("same")


def read(sees: str, tables: str) -> list[dict[str, Any]] | None:
    """The scopes that a form says; not those that stay the same. Raises `UsageError`, also where
    tables were written that it would not keep to."""
    if sees in ("all", "none") and tables.strip():
        raise UsageError(
            "tables are written, and something else is chosen",
            fix="choose “only these tables”, or write none",
        )
    if sees == "all":
        return None
    if sees == "none":
        return []
    if sees != "some":
        raise UsageError("it is not said what may be seen")
    found = [_entry(line) for line in map(str.strip, tables.splitlines()) if line]
    if not found:
        raise UsageError(
            "which tables may be seen is not said",
            fix="write a table in each line, as in public.orders, or choose “nothing of it”",
        )
    return found


def words(scopes: Iterable[Mapping[str, Any]] | None) -> list[str]:
    """A line for each table that may be seen."""
    if scopes is None:
        return ["the whole history"]
    return [brief(_line(each), _BRIEF) for each in scopes] or ["nothing of the history"]


def idle(given: Sequence[Mapping[str, Any]] | None, tables: Collection[str]) -> list[str]:
    """Those entries that none of these tables is meant by: most often one that is misspelt."""
    return [
        brief(each["table"], _BRIEF)
        for each in given or ()
        if not any(map(Scope.read([each]).sees, tables))
    ]


def brief_words(given: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """The same in a list of many."""
    lines = words(given)
    return (
        lines
        if len(lines) <= _LINES
        else [*lines[: _LINES - 1], f"and {len(lines) - _LINES + 1} more"]
    )


def _line(entry: Mapping[str, Any]) -> str:
    columns = entry.get("columns")
    return entry["table"] if columns is None else f"{entry['table']}: {', '.join(columns)}"


def _entry(line: str) -> dict[str, Any]:
    table, colon, rest = line.partition(":")
    columns = [each for each in map(str.strip, rest.split(",")) if each]
    if colon and not columns:
        raise UsageError(f"{line!r} has a colon and no columns behind it")
    return {"table": table.strip(), "columns": columns if colon else None}
