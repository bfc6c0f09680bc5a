"""What an embed may show, as people write it: `public.orders (customer_id): [number], status`.

Whose a row is stands in the column in parentheses, or `*` in them makes all rows everybody's; the
column in brackets names a row in sentences. Pure.
"""

import re
from typing import Any, Final

from bemi.errors import UsageError
from bemi.store.embeds import Shown
from bemi.ui.values import brief

EXAMPLE: Final = "public.orders (customer_id): [number], status, total\npublic.offers (*): name"
_BRIEF: Final = 120
# No part of it takes what the next one takes, too: else a line of blanks takes minutes.
_LINE: Final = re.compile(r"([^(:]+)\(([^)]+)\)\s*:(.+)")


def read(text: str) -> list[dict[str, Any]]:
    """The tables of a bound, as the API takes them. Raises `UsageError`."""
    return [_table(line) for line in map(str.strip, text.splitlines()) if line]


def listed(text: str) -> list[str]:
    """Names that stand behind each other, with commas or blanks between."""
    return [each for each in re.split(r"[\s,]+", text) if each]


def words(tables: tuple[Shown, ...]) -> list[str]:
    return [brief(_line(each), _BRIEF) for each in tables]


def _table(line: str) -> dict[str, Any]:
    found = _LINE.fullmatch(line)
    table, tenant, rest = ("", "", "") if found is None else map(str.strip, found.groups())
    if not (table and tenant and rest):
        raise UsageError(
            f"{brief(line, _BRIEF)!r} is not of the form TABLE (COLUMN): COLUMN, COLUMN",
            fix="say in parentheses which column has whose a row is, or * for everybody's",
        )
    names = [each for each in map(str.strip, rest.split(",")) if each]
    labels = [each[1:-1].strip() for each in names if each.startswith("[") and each.endswith("]")]
    if len(labels) > 1:
        raise UsageError(f"of {table}, several columns stand in brackets", fix="one names a row")
    return {
        "table": table,
        "tenant": None if tenant == "*" else tenant,
        "columns": [each.strip("[] ") if each[1:-1].strip() in labels else each for each in names],
        "label": labels[0] if labels else None,
    }


def _line(shown: Shown) -> str:
    columns = [f"[{each}]" if each == shown.label else each for each in shown.columns]
    return f"{shown.table} ({shown.tenant or '*'}): {', '.join(columns)}"
