"""Changes in the words of a failed assertion: one line each, values as Python shows them.

So nothing that comes from a database can move a terminal's cursor.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from bemi.history.change import Change

_MOST_CHANGES: Final = 20
_LONGEST_VALUE: Final = 60


def changes(found: Sequence[Change], what: str) -> str:
    """`what`, and the changes below it."""
    if not found:
        return f"{what}: none"
    lines = [f"{what} ({len(found)}):", *(f"  {change(each)}" for each in found[:_MOST_CHANGES])]
    if len(found) > _MOST_CHANGES:
        lines.append(f"  … and {len(found) - _MOST_CHANGES} more")
    return "\n".join(lines)


def change(told: Change) -> str:
    said = f"{told.operation} {table(told)}"
    if told.primary_key is not None:
        said += f" {name(told.primary_key)}"
    if told.previous_key is not None:
        said += f" (was {name(told.previous_key)})"
    if told.operation == "UPDATE":
        columns = ", ".join(
            f"{name(column)} {value(before)} -> {value(after)}"
            for column, (before, after) in told.diff().items()
        )
    else:
        columns = values(told.after or told.before)
    said += f": {columns}" if columns else ""
    return said + (f"  [{members(told.context)}]" if told.context else "  [no context]")


def table(told: Change) -> str:
    if told.schema == "public":
        return name(told.table)
    return f"{name(told.schema)}.{name(told.table)}"


def values(row: Mapping[str, object]) -> str:
    return ", ".join(f"{name(column)} {value(each)}" for column, each in row.items())


def members(context: Mapping[str, object]) -> str:
    return ", ".join(f"{name(key)} {value(each)}" for key, each in context.items())


def names(found: Iterable[str]) -> str:
    return ", ".join(name(each) for each in sorted(found)) or "none"


def name(text: str) -> str:
    return text if text.isprintable() and text else repr(text)


def value(given: Any) -> str:
    shown = str(given) if isinstance(given, Decimal) else repr(given)
    return shown if len(shown) <= _LONGEST_VALUE else f"{shown[: _LONGEST_VALUE - 1]}…"
